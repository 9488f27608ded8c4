"""Searches find what transformers' or a plain one finds, over the full text each time."""

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from limner.checkpoints.checkpoint import open_checkpoint
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.inference.search import (
    Branches,
    Contrast,
    DiverseSettings,
    search_beams,
    search_contrast,
)
from tests.families import DECODERS

ENDS = [2, 9]
PROMPTS = [[5], [4, 5, 6, 7], [n % 90 + 3 for n in range(40)]]


@pytest.fixture(params=["llama-grouped", "gpt2"], scope="module")
def pair(request, tmp_path_factory):
    """A tiny random model of transformers and the same of ours."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**DECODERS[request.param]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(folder)
    return model, open_checkpoint(folder).network(torch.float32, torch.device("cpu")).eval()


BEAMS = [
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 3, "length_penalty": -1.0, "early_stopping": True},
    {"num_beams": 2, "no_repeat_ngram_size": 2},
]


@pytest.mark.parametrize("options", BEAMS, ids=str)
def test_beams_equal_transformers(pair, options):
    model, network = pair
    for prompt in PROMPTS:
        reference = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=ENDS,
            pad_token_id=1, output_scores=True, return_dict_in_generate=True,
            num_return_sequences=options["num_beams"], **{"early_stopping": False, **options},
        )  # fmt: skip
        found = search_beams(
            network, prompt, DiverseSettings(**options), end_tokens=ENDS, max_tokens=12
        )
        for beam, row, score in zip(
            found, reference.sequences.tolist(), reference.sequences_scores.tolist(), strict=True
        ):
            assert beam.tokens == row[: len(beam.tokens)]
            assert set(row[len(beam.tokens) :]) <= {1}
            assert beam.score == pytest.approx(score, abs=1e-4)


def test_groups_without_a_penalty_each_find_the_same_and_with_one_differ(pair):
    _, network = pair
    options = {"end_tokens": ENDS, "max_tokens": 8}
    alone = search_beams(network, PROMPTS[1], DiverseSettings(num_beams=2), **options)
    same = DiverseSettings(num_beams=4, groups=2, diversity_penalty=0)
    found = search_beams(network, PROMPTS[1], same, **options)
    assert [beam.tokens for beam in found] == [b.tokens for b in alone for _ in range(2)]
    apart = DiverseSettings(num_beams=4, groups=4, diversity_penalty=100.0)
    found = search_beams(network, PROMPTS[1], apart, **options)
    assert len({beam.tokens[len(PROMPTS[1])] for beam in found}) == 4


@torch.no_grad()
def plain_diverse(model, prompt, groups, penalty, length):
    """One beam a group, without end tokens: greedy with the penalty."""
    texts, scores = [list(prompt) for _ in range(groups)], [0.0] * groups
    for _ in range(length):
        taken: list[Any] = []
        for group, text in enumerate(texts):
            logprobs = model(torch.tensor([text])).logits[0, -1].log_softmax(-1)
            fewer = logprobs.clone()
            for token in taken:
                fewer[token] -= penalty
            token = int(fewer.argmax())
            taken.append(token)
            scores[group] += float(logprobs[token])
            text.append(token)
    return sorted(zip(scores, texts, strict=True), reverse=True)


def test_diverse_beams_equal_a_plain_search(pair):
    model, network = pair
    settings = DiverseSettings(num_beams=3, groups=3, diversity_penalty=1.5, length_penalty=0)
    found = search_beams(network, PROMPTS[1], settings, end_tokens=[], max_tokens=9)
    expected = plain_diverse(model, PROMPTS[1], 3, 1.5, 9)
    assert [beam.tokens for beam in found] == [text for _, text in expected]
    assert [b.score for b in found] == pytest.approx([score for score, _ in expected], abs=1e-4)


@torch.no_grad()
def plain_contrast(model, prompt, weight, top_k, length):
    text = list(prompt)
    while len(text) < len(prompt) + length and not (text != prompt and text[-1] in ENDS):
        best = model(torch.tensor([text])).logits[0, -1].softmax(-1).topk(top_k)
        scores = []
        for token, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            output = model(torch.tensor([[*text, token]]), output_hidden_states=True)
            hidden = output.hidden_states[-1][0]
            alike = torch.cosine_similarity(hidden[-1:], hidden[:-1]).max()
            scores.append((1 - weight) * probability - weight * float(alike))
        text.append(int(best.indices[scores.index(max(scores))]))
    return text


@pytest.mark.parametrize(("weight", "top_k"), [(0.6, 4), (0.0, 3), (0.95, 5)])
def test_contrastive_search_equals_a_plain_one(pair, weight, top_k):
    model, network = pair
    for prompt in PROMPTS[1:]:
        found = search_contrast(
            network, prompt, Contrast(weight, top_k), end_tokens=ENDS, max_tokens=10
        )
        assert found == plain_contrast(model, prompt, weight, top_k, 10)


def test_contrastive_search_that_weighs_only_probability_is_greedy(pair):
    _, network = pair
    found = search_contrast(network, [5, 6], Contrast(0, 4), end_tokens=ENDS, max_tokens=12)
    (answer,) = Engine(network, end_tokens=ENDS).generate(
        [[5, 6]], Sampling(temperature=0, max_tokens=12)
    )
    assert found == answer.tokens


def test_branches_share_the_pages_of_what_they_begin_with_and_give_all_back(pair):
    _, network = pair
    branches = Branches(network, 4, 128)
    branches.read(list(range(70)))  # two pages and a part of a third
    branches.choose([0] * 4)
    assert branches.pool.used == 2 + 4
    branches.extend([1, 2, 3, 4])
    branches.choose([3, 3])
    assert branches.pool.used == 2 + 2
    branches.choose([1])
    assert branches.pool.used == 3


def test_impossible_settings_are_named(pair):
    with pytest.raises(ValueError, match=r"groups must divide num_beams \(4\), not 3"):
        DiverseSettings(num_beams=4, groups=3)
    with pytest.raises(ValueError, match="contrast must be from 0 to 1, not 2"):
        search_contrast(pair[1], [1], Contrast(2), end_tokens=[], max_tokens=1)
