import math
from dataclasses import replace

import numpy
import pytest
import torch
from torch.nn import functional

from limner.data.batches import collate
from limner.data.corpus import corpus_of_documents
from limner.data.rows import PackedRows, PaddedRows, in_order
from limner.objectives.distillation import Distillation
from limner.objectives.next_token import NextToken, documents_of
from limner.objectives.prefix import PrefixedDocuments, PrefixLanguageModel
from limner.objectives.tokens_ahead import TokensAhead, following
from tests.families import DECODERS, gpt2, llama
from tests.objectives.batches import (
    assert_same_training,
    documents,
    loss_and_gradients,
    network,
    packed,
    padded,
)


@pytest.fixture(scope="module")
def model():
    return network(llama(num_hidden_layers=2))


def objectives():
    teacher = network(gpt2(), seed=1)
    return {
        "next": NextToken(),
        "prefix": PrefixLanguageModel(),
        "distillation": Distillation(teacher),
    }


@pytest.mark.parametrize("name", objectives())
def test_ragged_micro_batches_equal_one_batch(model, name):
    objective, batch = objectives()[name], packed()
    whole = loss_and_gradients(objective, model, batch)
    parts = loss_and_gradients(objective, model, *batch.split(3))
    assert_same_training(whole, parts)


def test_packed_documents_are_trained_as_if_each_were_alone(model):
    texts = documents(sizes=(7, 3, 12, 1, 5))
    long = PackedRows(corpus_of_documents(texts), 100)
    alone = [collate(list(in_order(PaddedRows(corpus_of_documents([t]), 20)))) for t in texts]
    together = loss_and_gradients(NextToken(), model, collate(list(in_order(long))))
    assert_same_training(together, loss_and_gradients(NextToken(), model, *alone))


@pytest.mark.parametrize("fields", [llama(), gpt2(), DECODERS["llama-tied"]])
def test_the_loss_before_training_is_the_log_of_the_vocabulary(fields):
    loss = NextToken().loss(network(fields), packed())
    assert loss.means()["loss"] == pytest.approx(math.log(97), abs=0.1)


def test_the_loss_equals_that_of_the_logits(model):
    batch = padded()
    loss = NextToken().loss(model, batch)
    logits = model.logits(batch.tokens)
    wanted = torch.where(batch.weights > 0, batch.targets, -100)
    expected = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    torch.testing.assert_close(loss.mean, expected)


def test_the_end_of_a_document_is_learnt():
    model, batch = network(llama(num_hidden_layers=1)), packed()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        NextToken().loss(model, batch).mean.backward()
        optimizer.step()
    text = documents()[0]
    after = model.logits(torch.tensor([text[:-1]]))[0, -1]
    assert int(after.argmax()) == text[-1]


# Prefix


def test_a_prefix_is_read_from_both_sides_and_the_rest_from_left_to_right(model):
    objective, batch = PrefixLanguageModel(), padded(sizes=(11,))
    prefix = objective.prefix(batch)[0]
    length = int(prefix.sum())
    assert 1 <= length < 12
    objective.prefix = lambda _: (torch.arange(12) < 5)[None]  # type: ignore[method-assign, assignment]
    changed = batch.tokens.clone()
    changed[0, 4] = 50

    def hidden(tokens):
        return model(tokens, state=PrefixedDocuments(batch.documents, objective.prefix(batch)))

    moved = (hidden(batch.tokens) - hidden(changed)).abs().amax(-1)[0] > 1e-7
    assert moved[:5].all()
    changed = batch.tokens.clone()
    changed[0, 8] = 50
    moved = (hidden(batch.tokens) - hidden(changed)).abs().amax(-1)[0] > 1e-7
    assert moved.tolist() == [False] * 8 + [True] * 4
    assert float(objective.loss(model, batch).weight) == 11 - 4


# Further tokens


def ahead_model(depth):
    model = network(DECODERS["llama-tied"])
    config = replace(model.config, predictors=model.config.blocks[:depth])
    made = config.build()
    made.initialise(generator=torch.Generator().manual_seed(0))
    return made


def test_predictors_learn_what_stands_further_on_in_the_same_document():
    model, batch = ahead_model(2), packed()
    loss = TokensAhead(weight=0.5).loss(model, batch)
    texts = documents()
    assert float(loss.metrics["next"].weight) == sum(len(text) - 1 for text in texts)
    further = loss.metrics["ahead 2"]
    by_hand = 0
    for row in range(len(batch)):
        numbers = batch.documents[row].tolist()
        for t in range(len(numbers) - 1):
            same = numbers[t] == numbers[t + 1] and batch.weights[row, t + 1] > 0
            by_hand += int(same and numbers[t] >= 0)
    assert float(further.weight) == by_hand
    means = loss.means()
    assert means["ahead 2"] == pytest.approx(math.log(97), abs=0.1)
    total = loss.metrics["next"].total + 0.25 * (
        loss.metrics["ahead 2"].total + loss.metrics["ahead 3"].total
    )
    torch.testing.assert_close(loss.total, total)


def test_micro_batches_with_predictors():
    model, batch = ahead_model(1), packed()
    whole = loss_and_gradients(TokensAhead(), model, batch)
    assert_same_training(whole, loss_and_gradients(TokensAhead(), model, *batch.split(3)))


def test_a_network_without_predictors_is_refused(model):
    with pytest.raises(ValueError, match="this llama model has no predictors"):
        TokensAhead().loss(model, packed())


def test_following():
    assert following(torch.tensor([[1, 2, 3]]), 2).tolist() == [[3, 0, 0]]


# Distillation


def test_distillation_is_the_softened_divergence(model):
    batch, teacher = packed(), network(gpt2(), seed=1)
    loss = Distillation(teacher, temperature=3.0, share=0.25).loss(model, batch)
    own, theirs = (
        (m.head(m(batch.tokens, state=documents_of(batch))) / 3).softmax(-1).detach().double()
        for m in (model, teacher)
    )
    divergence = (theirs * (theirs.log() - own.log())).sum(-1)
    soft = 9 * (divergence * batch.weights).sum() / batch.weights.sum()
    hard = NextToken().loss(model, batch).means()["loss"]
    expected = 0.25 * float(soft) + 0.75 * float(hard)
    assert loss.means()["loss"] == pytest.approx(expected, abs=1e-6)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(model):
    loss = Distillation(network(llama(num_hidden_layers=2)), share=1.0).loss(model, packed())
    assert loss.means()["loss"] == pytest.approx(0, abs=1e-6)


def test_distillation_refuses_what_cannot_work(model):
    with pytest.raises(ValueError, match="the teacher has 50 tokens and the network 97"):
        Distillation(network(llama(vocab_size=50))).loss(model, packed())
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        Distillation(model, temperature=0)


def test_prefixes_depend_on_their_row_alone():
    batch = packed()
    whole = PrefixLanguageModel().prefix(batch)
    parts = [PrefixLanguageModel().prefix(part) for part in batch.split(2)]
    numpy.testing.assert_array_equal(whole, torch.cat(parts))
