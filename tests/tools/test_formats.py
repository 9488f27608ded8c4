import functools
import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from limner.inference.constraints import Form, Grammars, json_rule
from limner.tokenizers import Tokenizer
from limner.tools import formats
from limner.tools.formats import as_literal, format_of
from tests.tools.test_parsers import parse

FORMATS = [
    formats.HERMES, formats.QWEN_CODER, formats.LLAMA, formats.MISTRAL_LIST, formats.MISTRAL_NAMED,
    formats.PYTHONIC, formats.PYTHONIC_MARKED,
]  # fmt: skip
FUNCTIONS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"enum": ["Bern", "Rome"]}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
}
MARKS = {"[TOOL_CALLS]": 1, "[ARGS]": 2, "<|tool_call_start|>": 3, "<|tool_call_end|>": 4}
END = 0


@functools.cache
def byte_tokens():
    """A tokenizer of single bytes, with the marks of some formats as special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<end>", *MARKS, *alphabet]
    engine = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, []))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<end>", *MARKS])
    tokenizer = Tokenizer(engine, roles={"eos_token": "<end>"})
    return tokenizer, Grammars(tokenizer, len(tokens))


def fits(grammar, answer):
    """Whether an answer, its marks as special tokens, is one of a grammar's."""
    tokenizer, grammars = byte_tokens()
    constraint = grammars.constraint(Form.grammar(grammar))
    constraint.ends = (END,)
    tokens = tokenizer.encode(answer, parse_special=True)
    allowed = all(constraint.allowed(tokens[:i])[token] for i, token in enumerate(tokens))
    return allowed and bool(constraint.allowed(tokens)[END])


def written(form, *calls):
    """An answer of calls."""
    return form.before + form.between.join(form.call(*call) for call in calls) + form.after


CALLS = [("weather", '{"city": "Rome"}'), ("now", "{}")]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_calls_that_are_required_are_sound_and_are_read_back(form):
    literal = as_literal(MARKS)
    several = "start: calls\n" + form.grammar(FUNCTIONS, literal, json_rule, parallel=True)
    single = "start: calls\n" + form.grammar(FUNCTIONS, literal, json_rule, parallel=False)
    for calls in (CALLS[:1], CALLS[1:], CALLS):
        answer = written(form, *calls)
        assert fits(several, answer)
        assert fits(single, answer) == (len(calls) == 1)
        text, found = parse(form.parser, answer)
        assert (text, found) == ("", calls)
    for wrong in ['{"city": "Oslo"}', "{}", '{"city": "Rome", "x": 1}']:
        assert not fits(several, written(form, ("weather", wrong)))
    assert not fits(several, written(form, ("other", "{}")))
    assert not fits(several, "Hello.")
    assert not fits(several, "")


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_calls_of_a_free_answer_are_sound_too(form):
    literal = as_literal(MARKS)
    several = form.free_grammar(FUNCTIONS, literal, json_rule, parallel=True)
    single = form.free_grammar(FUNCTIONS, literal, json_rule, parallel=False)
    for answer in ["Hello, <b>you</b>!\n", written(form, CALLS[0]), ""]:
        assert fits(several, answer), answer
        assert fits(single, answer), answer
    assert fits(several, written(form, *CALLS))
    assert not fits(single, written(form, *CALLS))
    for wrong in ['{"city": "Oslo"}', "{}"]:
        assert not fits(several, written(form, ("weather", wrong)))
    if form.trigger:
        assert fits(several, "Let me see.\n" + written(form, CALLS[0]))
        assert not fits(several, "Let me see.\n" + written(form, ("other", "{}")))


TEMPLATES = [
    ("{% if tools %}<tools>{{ tools }}</tools> in <tool_call></tool_call>{% endif %}", "hermes"),
    ("{% if tools %}<tool_call>\n<function=f>\n<parameter=x>{% endif %}", "qwen-coder"),
    ("{{ tools }} {{ '[TOOL_CALLS] [' }}", "mistral"),
    ("{{ tools }} [TOOL_CALLS]f[ARGS]{}", "mistral-named"),
    ('{% if tools %}Environment: ipython {"name": f, "parameters": {}}{% endif %}', "llama"),
    ("{% if tools %}[func_name1(params_name1=params_value1)]{% endif %}", "pythonic"),
    ("{{ tools }}<|tool_call_start|>[f()]<|tool_call_end|>", "pythonic-marked"),
]


@pytest.mark.parametrize(("template", "name"), TEMPLATES)
def test_a_template_says_how_calls_are_written(template, name):
    found = format_of(template)
    assert found is not None
    assert found.name == name


def test_a_template_without_tools_has_no_format():
    assert format_of("{% for message in messages %}{{ message.content }}{% endfor %}") is None
    assert format_of("{{ tools }} in some way of its own") is None
    assert format_of("{{ tools }}<tool_call>f<arg_key>x</arg_key></tool_call>") is None


def test_marks_that_are_no_special_tokens_are_plain_text():
    assert as_literal({})("<tool_call>\n") == json.dumps("<tool_call>\n")
    assert as_literal({"[A]": 7})("x[A]y") == '"x" <[7]> "y"'
