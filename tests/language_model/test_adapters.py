"""Answers of a language model with adapters, by name."""

import math

import pytest
import torch

import limner
from limner.peft import merge
from tests.docs.tiny_model import write_tiny_model
from tests.peft.adapters import write_random_adapter

QUESTION = [{"role": "user", "content": "the quick brown fox"}]
OPTIONS = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}


@pytest.fixture
def folders(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    model = limner.load(path)
    write_random_adapter(model, tmp_path / "one", 1)
    write_random_adapter(model, tmp_path / "two", 2)
    return tmp_path


@pytest.fixture
def model(folders):
    model = limner.load(folders / "tiny.gguf")
    model.attach("one", folders / "one")
    model.attach("two", folders / "two")
    return model


def test_an_adapter_is_chosen_by_name_and_the_base_stays(model, folders):
    plain = limner.load(folders / "tiny.gguf")
    answers = {
        name: model.generate("the quick", adapter=name, **OPTIONS) for name in model.adapters
    }
    assert (
        model.generate("the quick", **OPTIONS).tokens
        == plain.generate("the quick", **OPTIONS).tokens
    )
    assert len({answer.text for answer in answers.values()}) == 2
    assert "".join(model.stream("the quick", adapter="one", **OPTIONS)) == answers["one"].text
    chats = [model.chat(QUESTION, adapter=name, **OPTIONS).text for name in (None, "one", "two")]
    assert len(set(chats)) == 3


def test_answers_are_those_of_the_merged_model(model, folders):
    merged = limner.load(folders / "tiny.gguf", weights="parameters")
    merge(merged.network, merged.attach("one", folders / "one"))
    expected = merged.logits("the quick brown")
    torch.testing.assert_close(model.logits("the quick brown", "one"), expected, atol=1e-4, rtol=0)
    best = model.next_token("the quick brown", "one").top(1)[0].id
    assert best == expected[-1].argmax()
    answer = model.generate("the quick brown", adapter="one", **OPTIONS)
    assert answer.tokens == merged.generate("the quick brown", **OPTIONS).tokens


def test_searches_take_an_adapter(model):
    for options in ({"num_beams": 2}, {"contrast": 0.6}, {"best_of": 2, "seed": 1}):
        found = model.search("the quick", adapter="one", max_tokens=6, **options)[0]
        plain = model.search("the quick", max_tokens=6, **options)[0]
        assert found.tokens != plain.tokens
    beam = model.search("the quick", adapter="one", max_tokens=1, num_beams=1)[0]
    logprobs = model.logits("the quick", "one")[-1].log_softmax(-1)
    assert math.isclose(beam.score, float(logprobs.max()), abs_tol=1e-4)


def test_an_answer_under_way_keeps_its_adapter_when_that_is_detached(model, folders):
    expected = model.generate("the quick", adapter="one", **OPTIONS).text
    stream = model.stream("the quick", adapter="one", **OPTIONS)
    begun = next(stream)
    model.detach("one")
    assert list(model.adapters) == ["two"]
    model.attach("one", folders / "two")
    assert begun + "".join(stream) == expected
    other = model.generate("the quick", adapter="one", **OPTIONS)
    assert other.tokens == model.generate("the quick", adapter="two", **OPTIONS).tokens


def test_names_must_be_right(model, folders):
    with pytest.raises(ValueError, match=r"no adapter 'oen' is attached.*'one'"):
        model.generate("the", adapter="oen")
    with pytest.raises(ValueError, match="'one' is none: choose one"):
        model.attach("one", folders / "two")
    with pytest.raises(ValueError, match="no adapter 'three'"):
        model.detach("three")
    with pytest.raises(FileNotFoundError, match="no adapter at"):
        model.attach("three", folders / "three")
