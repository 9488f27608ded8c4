"""Searches and drafts, as a user asks for them."""

import pytest

import limner
from tests.docs.tiny_model import write_tiny_model

DRAWN = {"temperature": 1, "seed": 5, "max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="module")
def model(path):
    return limner.load(path)


@pytest.mark.parametrize("draft", ["lookup", "itself"])
def test_answers_with_a_draft_are_those_without(model, path, draft):
    guessing = limner.load(path, draft=str(path) if draft == "itself" else draft)
    assert guessing.speculation is not None
    guessing.speculation.drafter.cost = 0  # a draft as large as the model would never pay
    for prompt in ("the quick", "lazy dog. the lazy dog. the lazy"):
        assert guessing.generate(prompt, **DRAWN) == model.generate(prompt, **DRAWN)
    assert guessing.engine.statistics.proposed or draft == "lookup"


def test_a_draft_that_cannot_be_is_refused(path):
    with pytest.raises(ValueError, match="no heads that predict further"):
        limner.load(path, draft="heads")


def test_beams_are_ranked_by_their_score_and_the_best_is_at_least_greedy(model):
    found = model.search("the quick", num_beams=3, length_penalty=0, max_tokens=6)
    scores = [answer.score for answer in found]
    assert scores == sorted(scores, reverse=True)
    greedy = model.generate("the quick", temperature=0, max_tokens=6, logprobs=0)
    assert scores[0] >= sum(token.logprob for token in greedy.logprobs) - 1e-3
    assert found[0].text == model.tokenizer.decode(found[0].tokens)


def test_messages_are_searched_after_the_template(model):
    messages = [{"role": "user", "content": "the quick brown fox"}]
    (found,) = model.search(messages, contrast=0.0, max_tokens=6)
    assert found.tokens == model.chat(messages, temperature=0, max_tokens=6).tokens


def test_the_best_of_several_answers_is_one_of_them(model):
    found = model.search("the quick", best_of=3, **DRAWN)
    assert model.generate("the quick", **DRAWN).tokens in [answer.tokens for answer in found]
    assert len({answer.tokens for answer in found}) == 3
    means = [sum(t.logprob for t in answer.logprobs) / 12 for answer in found]
    assert means == sorted(means, reverse=True)
    by_length = model.search("the quick", best_of=3, scorer=len, **DRAWN)
    assert [a.score for a in by_length] == sorted((len(a.text) for a in found), reverse=True)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, ValueError, "needs one of num_beams, contrast, best_of: none was given"),
        ({"num_beams": 2, "best_of": 2}, ValueError, "num_beams and best_of exclude each other"),
        ({"num_beams": 2, "lenght_penalty": 1}, TypeError, "did you mean 'length_penalty'"),
        ({"num_beams": 2, "max_tokens": 9000}, ValueError, "leaves room for"),
        ({"best_of": 2, "temperature": 0}, ValueError, "would all be the same at temperature 0"),
        ({"best_of": 0}, ValueError, "best_of must be 1 or more answers, not 0"),
    ],
)
def test_a_mistake_names_the_value_and_the_fix(model, options, kind, message):
    with pytest.raises(kind, match=message):
        model.search("the quick", **options)
