import pytest
import torch

TEXT = "the quick brown fox jumps over the lazy dog"
OPTIONS = {"temperature": 1, "seed": 7, "max_tokens": 12, "extra_body": {"ignore_eos": True}}


def complete(client, prompt, **options):
    return client.completions.create(model="tiny", prompt=prompt, **{**OPTIONS, **options})


def test_a_prompt_may_be_text_or_tokens_or_lists_of_them(client, alone):
    ids = alone.encode(TEXT)
    expected = alone.generate(TEXT, temperature=1, seed=7, max_tokens=12, ignore_eos=True).text
    for prompt in (TEXT, ids, [TEXT], [ids]):
        assert complete(client, prompt).choices[0].text == expected
    both = complete(client, [TEXT, "fox"])
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == expected
    assert both.choices[1].text == complete(client, "fox").choices[0].text != expected
    assert both.usage.prompt_tokens == len(ids) + len(alone.encode("fox"))


def test_sixteen_tokens_come_where_nobody_says_how_many(send):
    body = {"model": "tiny", "prompt": TEXT, "ignore_eos": True}
    assert send("POST", "/v1/completions", body).json["usage"]["completion_tokens"] == 16


def test_echo_with_logprobs_scores_the_prompt_as_a_trainer_would(client, alone):
    reply = complete(client, TEXT, echo=True, logprobs=1, max_tokens=1).choices[0]
    ids = alone.encode(TEXT)
    logprobs = alone.logits(ids).log_softmax(-1)
    own = logprobs[:-1].gather(-1, torch.tensor(ids[1:]).unsqueeze(-1)).squeeze(-1)
    scores = reply.logprobs
    assert scores.token_logprobs[0] is None
    assert scores.top_logprobs[0] is None
    assert scores.token_logprobs[1 : len(ids)] == pytest.approx(own.tolist(), abs=1e-5)
    assert len(scores.tokens) == len(ids) + 1
    best = logprobs[:-1].max(-1).values.tolist()
    assert [max(top.values()) for top in scores.top_logprobs[1 : len(ids)]] == pytest.approx(best)
    assert reply.text.startswith(TEXT)
    for token, offset in zip(scores.tokens, scores.text_offset, strict=True):
        assert reply.text[offset:].startswith(token) or offset == len(reply.text)


def test_no_token_may_be_asked_for_to_score_a_prompt(client, alone):
    reply = complete(client, [TEXT, "fox"], echo=True, logprobs=0, max_tokens=0)
    assert [choice.text for choice in reply.choices] == [TEXT, "fox"]
    assert len(reply.choices[0].logprobs.token_logprobs) == len(alone.encode(TEXT))
    assert reply.usage.completion_tokens == 0


def test_a_stream_is_the_same_completion(client):
    options = {"echo": True, "logprobs": 2, "n": 2}
    whole = complete(client, TEXT, **options)
    texts, ends = ["", ""], [None, None]
    tokens: list[list[str]] = [[], []]
    offsets: list[list[int]] = [[], []]
    for chunk in complete(client, TEXT, stream=True, **options):
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        tokens[choice.index] += choice.logprobs.tokens
        offsets[choice.index] += choice.logprobs.text_offset
        ends[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]
    assert offsets == [choice.logprobs.text_offset for choice in whole.choices]
    assert ends == ["length", "length"]


def test_best_of_returns_the_most_probable_answers_per_token(client):
    every = complete(client, TEXT, n=4, logprobs=0)
    best = complete(client, TEXT, n=2, best_of=4)
    means = {
        choice.text: sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
        for choice in every.choices
    }
    ordered = sorted(means, key=lambda text: -means[text])
    assert [choice.text for choice in best.choices] == ordered[:2]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == 48


def test_text_to_tokens_and_back(send, alone):
    reply = send("POST", "/tokenize", {"prompt": TEXT}).json
    assert reply == {"tokens": alone.encode(TEXT), "count": reply["count"], "max_model_len": 512}
    back = send("POST", "/detokenize", {"tokens": reply["tokens"]})
    assert back.json == {"prompt": TEXT}
