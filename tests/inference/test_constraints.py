import functools
import json
import math
import re

import pydantic
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from limner.inference.constraints import LOST, Form, Grammars
from limner.inference.engine import Engine
from limner.inference.processors import keep_to_form
from limner.inference.sampler import NOTHING_LEFT
from limner.inference.sampling import Sampling
from limner.tokenizers import Tokenizer
from limner.tokenizers.gguf import tokenizer_from_gguf
from tests.inference.fake import FakeNetwork
from tests.inference.naive import naive_answer
from tests.inference.rows import Row, some_logits
from tests.tokenizers.samples import (
    byte_level,
    gguf_of_sentencepiece,
    sentencepiece_model,
    wordpiece,
)  # fmt: skip

END, MARK = 0, 1
CHARACTERS = 'abcdefnsu0123456789{}[]:,"-.Ġ'


@functools.cache
def letters() -> Tokenizer:
    """A byte-level tokenizer of few tokens: the fake network knows 256 at most."""
    tokens = ["<end>", "<mark>", *CHARACTERS, "ab", "ba", "abc", '{"', '":', '"a', '":Ġ', "Ġ1"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    engine = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<end>", "<mark>"])
    return Tokenizer(engine, roles={"eos_token": "<end>"})


def sentencepiece(settings):
    return tokenizer_from_gguf(gguf_of_sentencepiece(sentencepiece_model("bpe", settings), "llama"))


VOCABULARY = 48  # more than the tokenizer has, as in models with padded embeddings


@functools.cache
def grammars() -> Grammars:
    return Grammars(letters(), VOCABULARY)


def started(form, tokenizer=None, vocabulary=VOCABULARY):
    made = Grammars(tokenizer, vocabulary) if tokenizer else grammars()
    constraint = made.constraint(form)
    constraint.ends = (END,)
    return constraint


def ids(*texts):
    return [letters().engine.token_to_id(text) for text in texts]


def chosen(mask):
    return set(mask.nonzero().flatten().tolist())


# What is allowed


@pytest.mark.parametrize(
    "make",
    [byte_level, wordpiece, lambda: sentencepiece("llama"), lambda: sentencepiece("gemma")],
    ids=["byte-level", "wordpiece", "llama", "gemma"],
)
def test_a_token_is_allowed_exactly_if_the_text_can_still_become_one_of_the_forms(make):
    tokenizer = make()
    texts = ["the in", "the other", "in", "a1", "a"]
    end = max(tokenizer.special_ids)
    constraint = Grammars(tokenizer, tokenizer.vocabulary_size).constraint(Form.choice(texts))
    constraint.ends = (end,)
    ordinary = [i for i in range(tokenizer.vocabulary_size) if i not in tokenizer.special_ids]
    written: list[list[int]] = [[]]
    seen: set[str] = set()
    while written:
        tokens = written.pop()
        text = tokenizer.decode(tokens)
        if text in seen:
            continue
        seen.add(text)
        grown = {i: tokenizer.decode([*tokens, i]) for i in ordinary}
        expected = {
            i for i, longer in grown.items()
            if longer != text and any(goal.startswith(longer) for goal in texts)
        }  # fmt: skip
        allowed = chosen(constraint.allowed(tokens))
        assert allowed - {end} == expected, text
        assert (end in allowed) == (text in texts), text
        written += [[*tokens, i] for i in expected]
    assert len(seen) > 12


def test_the_end_is_allowed_exactly_where_the_form_may_end():
    tokenizer = letters()
    constraint = started(Form.regex("ab?(ab)*"))
    for text in ["", "a", "ab", "aba", "abab", "aab"]:
        tokens = [tokenizer.token_id(letter) for letter in text]
        assert (END in chosen(constraint.allowed(tokens))) == (text not in ("", "aba")), text


def test_a_token_that_ends_the_answer_is_not_taken_for_text():
    a, b = ids("a", "b")
    constraint = started(Form.regex("a+b"))
    constraint.ends = (END, a)
    assert a not in chosen(constraint.allowed([]))
    constraint = started(Form.regex("b(ab)?"))
    constraint.ends = (END, a)
    assert chosen(constraint.allowed([b])) == {END, a, *ids("ab")}


def test_special_tokens_are_allowed_only_where_a_grammar_names_them():
    constraint = started(Form.grammar(f'start: <[{MARK}]> "a"'))
    assert chosen(constraint.allowed([])) == {MARK}
    assert chosen(constraint.allowed([MARK])) == {*ids("a")}
    anything = chosen(started(Form.regex("(.|\n)*")).allowed([]))
    assert anything == {END, *range(2, letters().vocabulary_size)}


def test_every_tokenization_is_allowed_and_not_only_the_usual_one():
    allowed = chosen(started(Form.choice(["abc"])).allowed([]))
    assert allowed == {*ids("a", "ab", "abc")}


def test_logits_of_allowed_tokens_are_bit_equal_and_others_ruled_out():
    logits = some_logits(2, VOCABULARY)
    held = Row(Sampling(), [3], 1, constraint=started(Form.regex("[ab]+")))
    digits = Row(Sampling(), [3], 1, constraint=started(Form.regex("[0-9]")))
    changed = keep_to_form(logits, [held, digits])
    for row, texts in [(0, ("a", "b", "ab", "ba")), (1, "0123456789")]:
        allowed = ids(*texts)
        assert torch.equal(changed[row, allowed], logits[row, allowed])
        others = [i for i in range(VOCABULARY) if i not in allowed]
        assert (changed[row, others] == -torch.inf).all()


def test_a_tokenizer_whose_words_end_in_spaces_is_refused():
    engine = tokenizers.Tokenizer(models.BPE({"a</w>": 0, "a": 1}, []))
    engine.decoder = decoders.BPEDecoder()
    with pytest.raises(ValueError, match="words end in spaces"):
        Grammars(Tokenizer(engine), 2)


# In the engine

FORMS = [
    None,
    Form.regex("[ab]{2,9}"),
    Form.choice(["abc", "ab", "fade"]),
    Form.schema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}),
    Form.schema({"properties": {"a": {"enum": [1, 22, "ab"]}}, "required": ["a"],
                 "additionalProperties": False, "type": "object"}),
]  # fmt: skip
requests = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6),
        "form": st.sampled_from(FORMS),
        "sampling": st.builds(
            Sampling, seed=st.integers(0, 5), temperature=st.sampled_from([0, 1]),
            max_tokens=st.integers(1, 30), stop_tokens=st.sampled_from([(), (3,)]),
            logprobs=st.just(0), logprobs_of=st.sampled_from(["model", "processed"]),
        ),
    }
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=5),
    st.integers(1, 3),
    st.lists(st.sampled_from(["step", "step", "put back", "interrupt"]), max_size=30),
)
def test_each_answer_is_held_to_its_own_form_whatever_happens_around_it(asked, rows, happenings):
    network = FakeNetwork(VOCABULARY, 60)
    engine = Engine(network, rows=rows, token_budget=rows + 2, end_tokens=[END])
    answers = [
        engine.submit(
            request["prompt"], request["sampling"],
            constraint=grammars().constraint(request["form"]) if request["form"] else None,
        )
        for request in asked
    ]  # fmt: skip
    for happening in happenings:
        happen(engine, network, happening)
    while engine.busy:
        engine.step()
    for request, answer in zip(asked, answers, strict=True):
        expected = naive_answer(
            network.next_logits, request["prompt"], request["sampling"], end_tokens=[END],
            context=60, new_constraint=functools.partial(anew, request["form"]),
        )  # fmt: skip
        assert answer.generated == expected.tokens
        assert [event.logprob for event in answer.events if event.token is not None] == (
            pytest.approx(expected.logprobs)
        )
        assert answer.finish_reason == expected.finish_reason


def happen(engine, network, happening):
    running = [sequence for sequence in engine.scheduler.sequences if sequence.row is not None]
    if happening == "put back" and running:
        engine.scheduler.preempt(running[0])
        return
    if happening == "interrupt":
        network.interrupt = interrupted
    try:
        engine.step()
    except KeyboardInterrupt:
        pass
    finally:
        network.interrupt = lambda: None


def interrupted():
    raise KeyboardInterrupt


def anew(form, ends):
    """A constraint that has seen nothing, for a single token."""
    if form is None:
        return None
    constraint = grammars().constraint(form)
    constraint.ends = ends
    return constraint


def test_an_interrupt_while_a_token_is_taken_neither_loses_nor_doubles_it():
    constraint = started(Form.choice(["abab", "abba"]))
    words, (a, b) = constraint._words, ids("a", "b")
    translated, calls = words.translated, []

    def breaking(generated, start):
        calls.append(start)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return translated(generated, start)

    constraint._words = type("Breaking", (), {"translated": staticmethod(breaking)})()
    for tokens in ([a], [a, b]):
        try:
            constraint._follow(tokens)
        except KeyboardInterrupt:
            constraint._follow(tokens)
    constraint._words = words
    assert chosen(constraint.allowed([a, b])) == {*ids("a", "b", "ab", "ba")}
    assert calls == [0, 1, 0]


def test_an_answer_that_goes_back_is_followed_from_there():
    constraint = started(Form.regex("ab|ba"))
    a, b = ids("a", "b")
    assert chosen(constraint.allowed([a])) == {b}
    assert chosen(constraint.allowed([b])) == {a}
    assert chosen(constraint.allowed([])) == {*ids("a", "b", "ab", "ba")}


def test_an_answer_that_could_not_end_is_refused():
    engine = Engine(FakeNetwork(VOCABULARY, 60))
    with pytest.raises(ValueError, match="must be able to end: leave ignore_eos out"):
        engine.submit([1], constraint=grammars().constraint(FORMS[1]))
    with pytest.raises(ValueError, match="stop_tokens"):
        engine.submit([1], Sampling(ignore_eos=True), constraint=grammars().constraint(FORMS[1]))


def test_a_form_that_the_vocabulary_cannot_write_ends_in_an_error():
    engine = Engine(FakeNetwork(VOCABULARY, 60), end_tokens=[END])
    answer = engine.submit([1], constraint=grammars().constraint(Form.choice(["ax"])))
    while engine.busy:
        engine.step()
    assert answer.finish_reason == "error"
    assert answer.error == NOTHING_LEFT


def test_a_form_that_becomes_too_complex_ends_only_its_own_answer():
    rules = [f"a{i}: a{i + 1} a{i + 1}" for i in range(40)]
    monster = Form.grammar("\n".join(["start: a0", *rules, 'a40: "a" | ""']))
    engine = Engine(FakeNetwork(VOCABULARY, 60), end_tokens=[END])
    endless = Sampling(logit_bias={END: -math.inf})
    lost = engine.submit([1], endless, constraint=grammars().constraint(monster))
    other = engine.submit([1], constraint=grammars().constraint(Form.regex("[ab]{3}")))
    while engine.busy:
        engine.step()
    assert lost.finish_reason == "error"
    assert lost.error is not None
    assert lost.error.startswith(LOST)
    assert "\n" not in lost.error
    assert other.finish_reason == "stop"


# What cannot be followed

REFUSED = [
    ({"regex": "(a"}, r"regex cannot be followed: unclosed group, in the expression '\(a'"),
    ({"regex": "(?=a)b"}, "look-around.* is not supported"),
    ({"grammar": "start: word"}, r'line 1, column 8: unknown name: "word"'),
    ({"grammar": 'begin: "a"'}, "grammar cannot be followed: .*start"),
    ({"choice": []}, "at least one, not"),
    ({"regex": "a", "choice": ["a"]}, "regex and choice exclude each other"),
    ({"schema": {"uniqueItems": True}}, "schema cannot be followed: the keyword uniqueItems is"),
    ({"schema": {"not": {}, "if": {}}}, "the keyword if, not is not supported"),
    ({"schema": {"properties": {"a": {"nullable": True}}}}, "the keyword nullable is not"),
    ({"schema": {"items": {"divisibleBy": 2}}}, "divisibleBy .*use multipleOf"),
    ({"schema": {"anyOf": [{"minLenght": 1}]}}, "minLenght is unknown; did you mean 'minLength'"),
    ({"schema": {"format": "zip"}}, "the format 'zip' is not supported"),
    ({"schema": {"pattern": "(?!a)"}}, r"not supported, in the expression '\(\?!a\)'"),
    ({"schema": {"oneOf": [{"minLength": 1}, {}]}}, "the keyword oneOf is supported only if"),
    ({"schema": {"type": "strng"}}, "Invalid type: strng"),
    ({"schema": {"$ref": "http://localhost/a"}}, "http://localhost/a"),
    ({"schema": {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a",
                 "maxLength": 2, "definitions": {"a": {}}}}, "keyword maxLength stands beside"),
    ({"schema": {"x-guidance": {"lenient": True}, "uniqueItems": True}}, "uniqueItems is not"),
    ({"grammar": 'start: %json {"x-guidance": {"lenient": true}, "uniqueItems": true}'},
     "the keyword uniqueItems is not supported"),
    ({"schema": False}, "false allows no text"),
    ({"schema": "{"}, "schema is no JSON"),
    ({"schema": 3}, "must be an object or a boolean, not '3'"),
    ({"schema": json.loads('{"items":' * 150 + "{}" + "}" * 150)}, "nested more than 100 deep"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "complaint"), REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_line_that_names_it(form, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        grammars().constraint(Form.of(**form))
    assert "\n" not in str(raised.value)


def test_remarks_of_a_schema_are_no_matter():
    remarks = {"title": "T", "description": "d", "examples": [1], "x-format": 3, "_format": 4}
    schema = {"type": "object", "properties": {"minLenght": remarks}, **remarks}
    assert chosen(started(Form.schema(schema)).allowed([]))


# JSON


class Place(pydantic.BaseModel):
    a: int
    b: float | None
    c: list[bool]


def test_a_schema_may_be_an_object_its_text_or_a_pydantic_model():
    given = [Place, Place.model_json_schema(), json.dumps(Place.model_json_schema())]
    assert len({Form.schema(schema) for schema in given}) == 1
    assert Form.schema(True) == Form.schema({})


def test_pretty_and_compact_texts_are_both_followed_but_not_endless_space():
    form = Form.schema({"type": "array", "items": {"type": "integer"}})
    constraint = started(form, byte_level(), byte_level().vocabulary_size)
    for text in ["[1,2]", "[1, 2]", "[\n  1,\n\t2\n]", json.dumps([1, 2], indent=8)]:
        constraint.allowed([])
        tokens = byte_level().encode(text, add_special_tokens=False)
        for place, token in enumerate(tokens):
            assert constraint.allowed(tokens[:place])[token], (text, place)
        assert constraint.allowed(tokens)[END], text
    spaces = byte_level().encode("[" + " " * 50, add_special_tokens=False)
    assert not constraint.allowed(spaces).any()


def test_a_compiled_form_serves_many_answers():
    form = Form.regex("a+b")
    one, other = grammars().constraint(form), grammars().constraint(form)
    (a,) = ids("a")
    assert END not in chosen(one.allowed([a, a]))
    assert chosen(other.allowed([])) == {i for i in range(2, 48) if re.fullmatch("ab?", spelt(i))}


def spelt(token):
    return letters().decode([token])
