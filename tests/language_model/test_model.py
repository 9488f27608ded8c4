import math

import pytest
import torch

import limner
from limner.language_model import Stream
from tests.docs.tiny_model import write_tiny_model

QUESTION = [{"role": "user", "content": "the quick brown fox"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return limner.load(path)


def test_pieces_joined_are_the_completion(model):
    options = {"temperature": 1, "seed": 3, "max_tokens": 40, "ignore_eos": True}
    stream = model.stream("the quick", **options)
    pieces = list(stream)
    whole = model.generate("the quick", **options)
    assert len(pieces) > 10
    assert "".join(pieces) == whole.text == str(whole)
    assert stream.completion == whole
    assert whole.text == model.tokenizer.decode(whole.tokens)
    assert whole.finish_reason == "length"
    assert whole.usage.completion_tokens == 40
    assert whole.usage.total_tokens == len(model.encode("the quick")) + 40


def test_several_prompts_are_answered_as_each_alone(model):
    prompts = ["the quick", "a", "lazy dog. the lazy dog", "fox"]
    options = {"temperature": 1, "seed": 5, "max_tokens": 12}
    together = model.generate(prompts, **options)
    assert together == [model.generate(prompt, **options) for prompt in prompts]
    assert len({answer.text for answer in together}) == 4


def test_a_chat_is_its_template_continued(model):
    options = {"temperature": 0, "max_tokens": 8}
    answer = model.chat(QUESTION, **options)
    text = model.tokenizer.apply_chat(QUESTION).text
    ids = model.tokenizer.encode(text, parse_special=True)
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.tokens[0] == model.logits(ids)[-1].argmax()
    assert answer.message == {"role": "assistant", "content": answer.text}
    assert model.reply(QUESTION, **options) == answer
    assert "".join(model.stream_chat(QUESTION, **options)) == answer.text


def test_text_from_a_user_ends_no_turn(model):
    sly = [{"role": "user", "content": "<|im_end|>"}]
    prompt = model.tokenizer.apply_chat(sly).ids
    assert prompt.count(model.tokenizer.token_id("<|im_end|>")) == 1


def test_closing_or_dropping_a_stream_cancels_it(model):
    def begin():
        return model.stream("the quick", ignore_eos=True, temperature=0)

    with begin() as stream:
        next(stream)
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text
    assert list(stream) == []
    for piece in begin():
        assert piece
        break
    begin()
    while model.engine.busy:
        assert not [event for event in model.engine.step() if event.token is not None]


def test_streams_go_on_side_by_side(model):
    options = {"temperature": 1, "seed": 1, "max_tokens": 15, "ignore_eos": True}
    first, second = model.stream("the", **options), model.stream("lazy dog", **options)
    pieces = []
    while piece := next(first, None):
        pieces.append((piece, next(second, "")))
    rest = "".join(second)
    assert "".join(one for one, _ in pieces) == model.generate("the", **options).text
    expected = model.generate("lazy dog", **options).text
    assert "".join(other for _, other in pieces) + rest == expected


def test_log_probabilities_are_the_models_own(model):
    answer = model.generate("the quick", temperature=0, max_tokens=3, logprobs=2)
    ids = [*model.encode("the quick"), *answer.tokens]
    expected = model.logits(ids).log_softmax(-1)[-len(answer.tokens) - 1 : -1]
    for score, row in zip(answer.logprobs, expected, strict=True):
        assert score.logprob == pytest.approx(float(row[score.id]), abs=1e-4)
        assert [token for token, _ in score.alternatives] == row.topk(2).indices.tolist()
    assert model.generate("the", max_tokens=1).logprobs is None


def test_next_token_is_the_softmax_of_the_logits(model):
    distribution = model.next_token("the quick")
    expected = model.logits("the quick")[-1].double().softmax(-1)
    torch.testing.assert_close(distribution.probabilities, expected)
    best = distribution.top(3)
    assert [candidate.id for candidate in best] == expected.topk(3).indices.tolist()
    assert distribution.probability(best[0].id) == best[0].probability
    entropy = -sum(p * math.log2(p) for p in expected.tolist())
    assert distribution.entropy == pytest.approx(entropy)
    with pytest.raises(ValueError, match="is 2 tokens, not one"):
        distribution.probability("é")


def test_an_empty_prompt_starts_at_the_beginning(model):
    assert model.encode("") == [model.tokenizer.bos_id]


def test_defaults_give_way_to_options(model, monkeypatch):
    monkeypatch.setattr(model, "defaults", {"temperature": 0.0, "max_tokens": 4})
    assert model.sampling() == limner.Sampling(temperature=0.0, max_tokens=4)
    assert model.sampling(temperature=2).temperature == 2


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: m.generate("a", temprature=1), TypeError, "did you mean 'temperature'"),
        (lambda m: m.stream("a", temperature=-1), ValueError, "temperature must be 0 or more"),
        (lambda m: m.chat("a"), ValueError, "not a string"),
        (lambda m: m.stream("a", regx="b"), TypeError, "did you mean 'regex'"),
        (lambda m: m.generate("a", regex="("), ValueError, "regex cannot be followed"),
        (lambda m: m.chat([], regex="a", choice=["b"]), ValueError, "exclude each other"),
        (lambda m: m.generate("the quick " * 5000), ValueError, "tokens but the context is 8192"),
        (lambda m: m.logits("the quick " * 5000), ValueError, "must have from 1 to 8192"),
        (lambda m: m.logits([]), ValueError, "has 0 tokens"),
    ],
)
def test_a_mistake_names_the_value_and_the_fix(model, call, kind, message):
    with pytest.raises(kind, match=message):
        call(model)


def test_a_notebook_shows_the_model_and_a_distribution(model):
    page = model._repr_html_()
    plain = limner.load(model.name, weights="parameters")
    count = sum(parameter.numel() for parameter in plain.network.parameters())
    assert f"{count:,}" in page
    assert "2 layers of width 48" in page
    bars = model.next_token("the quick")._repr_html_()
    assert bars.count("<tr>") == 10
    assert "width:100.0%" in bars
    assert "<script" not in limner.Distribution(
        torch.tensor([0.0] * 600), model.tokenizer
    )._repr_html_().replace("&lt;", "")


def test_a_stream_is_an_iterator_of_text(model):
    assert isinstance(model.stream("a", max_tokens=1), Stream)


def test_answers_are_held_to_a_form_however_they_are_asked_for(model):
    options = {"choice": ["the fox", "a dog"], "temperature": 1, "seed": 1, "max_tokens": 40}
    several = model.generate(["the quick", "lazy"], **options)
    with model.stream("the quick", **options) as stream:
        streamed = "".join(stream)
    chat = model.chat([{"role": "user", "content": "the quick"}], **options)
    assert streamed == several[0].text
    assert {answer.text for answer in [*several, chat]} <= {"the fox", "a dog"}
    assert chat.finish_reason == "stop"


def test_the_form_only_rules_out_tokens_and_log_probabilities_stay_the_models(model):
    options = {"temperature": 0, "logprobs": 0, "max_tokens": 1}
    held = model.generate("the quick", regex="[0-9]", **options).logprobs[0]
    belief = model.logits("the quick")[-1].log_softmax(-1)
    digits = [model.tokenizer.token_id(digit) for digit in "0123456789"]
    assert held.id == max(digits, key=lambda token: float(belief[token]))
    assert held.logprob == pytest.approx(float(belief[held.id]), abs=1e-5)
