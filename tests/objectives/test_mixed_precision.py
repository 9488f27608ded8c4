"""Each objective in bfloat16 products beside float32, as `limner.training.trainer` runs it."""

import pytest
import torch
from tokenizers import AddedToken

from limner.objectives import cross_entropy
from limner.objectives.denoising import Denoising
from limner.objectives.distillation import Distillation
from limner.objectives.masked import MaskedTokens
from limner.objectives.next_token import NextToken
from limner.objectives.prefix import PrefixLanguageModel
from limner.objectives.replaced import ReplacedTokens
from limner.objectives.span_corruption import SpanCorruption
from limner.objectives.tokens_ahead import TokensAhead
from limner.objectives.vocabulary import SENTINEL
from limner.tokenizers import Tokenizer
from tests.families import bart, bert, gpt2, llama, t5
from tests.objectives.batches import loss_and_gradients, network, packed, padded
from tests.objectives.test_decoder_objectives import ahead_model
from tests.tokenizers.samples import byte_level_engine


def tokenizer():
    engine = byte_level_engine()
    names = ["<mask>", *[SENTINEL.format(n) for n in range(20)]]
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return Tokenizer(engine, roles={"eos_token": "</s>", "mask_token": "<mask>"})


WORDS = tokenizer()
SIZE = {"vocab_size": WORDS.vocabulary_size}
CASES = {
    "next": lambda: (NextToken(), network(llama()), packed()),
    "prefix": lambda: (PrefixLanguageModel(), network(llama()), padded()),
    "ahead": lambda: (TokensAhead(), ahead_model(1), packed()),
    "distillation": lambda: (Distillation(network(gpt2(), 1)), network(llama()), packed()),
    "masked": lambda: (MaskedTokens(WORDS), network(bert() | SIZE), packed()),
    "replaced": lambda: (
        ReplacedTokens(network(bert() | SIZE, 1), WORDS),
        network(bert(architectures=["ElectraForPreTraining"], model_type="electra") | SIZE),
        packed(),
    ),
    "spans": lambda: (SpanCorruption(WORDS), network(t5() | SIZE), padded()),
    "denoising": lambda: (Denoising(WORDS), network(bart() | SIZE), padded()),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_near_those_of_floats(name, monkeypatch):
    """With chunks of a few places, which share what autocast casts once."""
    monkeypatch.setattr(cross_entropy, "CHUNK", 1)
    monkeypatch.setattr(cross_entropy, "PLACES", 5)
    objective, model, batch = CASES[name]()
    loss, exact = loss_and_gradients(objective, model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        half, found = loss_and_gradients(objective, model, batch)
    assert half != loss
    assert half == pytest.approx(loss, abs=0.003)
    assert found.keys() == exact.keys()
    whole, wanted = (torch.cat([g.flatten() for g in each.values()]) for each in (found, exact))
    assert whole.dtype == torch.float32
    assert ((whole - wanted).norm() / wanted.norm()).item() < 0.03
