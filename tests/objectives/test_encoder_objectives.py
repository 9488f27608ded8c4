import math

import pytest
import torch

from limner.objectives.masked import MaskedTokens, Masker
from limner.objectives.replaced import ReplacedTokens
from limner.tokenizers import Tokenizer
from tests.families import bert
from tests.objectives.batches import (
    assert_same_training,
    loss_and_gradients,
    network,
    packed,
    padded,
)
from tests.tokenizers.samples import byte_level, wordpiece_engine

ROLES = {"mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
SIZE = 600


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(wordpiece_engine(), roles=ROLES)


def encoder(architecture="BertForMaskedLM", seed=0, **changes):
    fields = bert(architectures=[architecture], vocab_size=SIZE, num_hidden_layers=2)
    return network(fields | changes, seed)


def electra(**changes):
    fields = {"model_type": "electra", "embedding_size": 42}
    return encoder("ElectraForPreTraining", **(fields | changes))


@pytest.fixture
def batch():
    return packed(vocabulary=SIZE)


def test_no_special_token_and_no_padding_is_masked(tokenizer):
    masker, batch = Masker(tokenizer, share=0.9), padded(vocabulary=SIZE)
    batch.tokens[:, 0] = tokenizer.class_id
    masked = masker(batch)
    assert not (masked.chosen & ~batch.mask).any()
    assert not masked.chosen[:, 0].any()
    torch.testing.assert_close(masked.tokens[~masked.chosen], batch.tokens[~masked.chosen])
    assert (masked.tokens == tokenizer.mask_id).any()
    allowed = batch.mask & (batch.tokens != tokenizer.class_id)
    assert (masked.chosen.sum(1) >= 1)[allowed.any(1)].all()


def test_a_row_is_masked_the_same_in_any_company(tokenizer, batch):
    whole = Masker(tokenizer)(batch).tokens
    parts = [Masker(tokenizer)(part).tokens for part in batch.split(2)]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_a_network_is_trained_at_the_masked_places_only(tokenizer, batch):
    objective, model = MaskedTokens(tokenizer), encoder()
    loss = objective.loss(model, batch)
    assert float(loss.weight) == float(objective.masker(batch).chosen.sum())
    assert loss.means()["loss"] == pytest.approx(math.log(SIZE), abs=0.1)
    whole = loss_and_gradients(objective, model, batch)
    assert_same_training(whole, loss_and_gradients(objective, model, *batch.split(3)))


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(ValueError, match="the tokenizer has no mask_token"):
        MaskedTokens(byte_level())


def test_replaced_tokens_weigh_the_two_losses_as_the_paper_says(tokenizer, batch):
    objective = ReplacedTokens(encoder(seed=1), tokenizer)
    row = batch.part(slice(0, 1))
    loss = objective.loss(electra(), row)
    means = loss.means()
    assert means["loss"] == pytest.approx(
        means["generator"] + 50 * means["discriminator"], rel=1e-5
    )
    assert means["generator"] == pytest.approx(math.log(SIZE), abs=0.3)  # of one token
    assert means["discriminator"] == pytest.approx(math.log(2), abs=0.1)


def test_replaced_tokens_train_both_networks_alike_in_micro_batches(tokenizer, batch):
    objective, model = ReplacedTokens(encoder(seed=1), tokenizer), electra()
    both = torch.nn.ModuleList([model, objective])

    class Both:
        def loss(self, parts, rows):
            return objective.loss(model, rows)

    whole = loss_and_gradients(Both(), both, batch)
    parts = loss_and_gradients(Both(), both, *batch.split(3))
    assert any("generator" in name for name in whole[1])
    assert_same_training(whole, parts, 3e-5)  # fifty times the loss, fifty times the rounding


def test_a_generator_shares_the_networks_token_vectors(tokenizer):
    model, generator = electra(), encoder(seed=1)
    objective = ReplacedTokens(generator, tokenizer)
    objective.share_embeddings(model)
    assert generator.embedding.tokens.weight is model.embedding.tokens.weight
    assert generator.head("masked").output.weight is model.embedding.tokens.weight
    with pytest.raises(ValueError, match="cannot be shared"):
        objective.share_embeddings(electra(hidden_size=21, embedding_size=21))
