"""Batches of ragged documents, and tiny networks to train on them."""

import torch

from limner.data.batches import Batch, collate
from limner.data.corpus import corpus_of_documents
from limner.data.rows import PackedRows, PaddedRows, in_order
from limner.models.families import find_family

END = 9


def documents(sizes=(7, 3, 12, 1, 5, 9, 20), vocabulary=97, seed=0):
    """Documents of random tokens, each with its end."""
    random = torch.Generator().manual_seed(seed)
    texts = [torch.randint(10, vocabulary, (size,), generator=random).tolist() for size in sizes]
    return [[*text, END] for text in texts]


def packed(length=8, **options) -> Batch:
    return collate(list(in_order(PackedRows(corpus_of_documents(documents(**options)), length))))


def padded(length=12, **options) -> Batch:
    return collate(list(in_order(PaddedRows(corpus_of_documents(documents(**options)), length))))


def network(fields, seed=0):
    """A random network of a config.json's fields."""
    made = find_family(fields["model_type"]).read_config(fields).build()
    made.initialise(generator=torch.Generator().manual_seed(seed))
    return made


def loss_and_gradients(objective, model, *batches):
    """The loss of the batches together, and the gradient of every parameter, divided once."""
    model.zero_grad()
    losses = [objective.loss(model, batch) for batch in batches]
    for loss in losses:
        loss.total.backward()
    weight = sum(loss.weight for loss in losses)
    gradients = {
        name: parameter.grad / weight
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return float(sum(loss.detach().total for loss in losses) / weight), gradients


def assert_same_training(one, other, tolerance=1e-6):
    assert abs(one[0] - other[0]) < tolerance
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        difference = (gradient - other[1][name]).abs().max()
        assert difference < tolerance, f"{name} differs by {difference}"
