"""Tiny training runs."""

from pathlib import Path
from typing import Any

from limner.data.batches import batches
from limner.data.corpus import corpus_of_documents
from limner.data.rows import PackedRows, RowStream, in_order
from limner.objectives.next_token import NextToken
from limner.training.events import LOG, read_events
from limner.training.settings import TrainingSettings
from limner.training.trainer import Trainer
from tests.families import llama
from tests.objectives.batches import documents, network

FIELDS = llama(num_hidden_layers=2, hidden_size=24, intermediate_size=32, num_attention_heads=2)
SIZES = (7, 3, 12, 1, 5, 9, 20)


def settings(**changes) -> TrainingSettings:
    values: dict[str, Any] = {"steps": 12, "rows": 4, "measure_peak": False, "save_every": 5}
    values |= {"optimizer": {"rate": 1e-2}, "validate_every": 4}
    return TrainingSettings.model_validate(values | changes)


def trainer(folder: Path, objective=None, fields=FIELDS, **changes) -> Trainer:
    """A trainer on the documents of the objectives' tests."""
    options = {
        key: changes.pop(key)
        for key in ("tokenizer", "validation", "bytes_per_token", "listeners", "ranks")
        if key in changes
    }
    chosen = settings(**changes)
    rows = PackedRows(corpus_of_documents(documents(SIZES)), 8)
    stream = RowStream(rows, chosen.seed)
    model = network(fields, chosen.seed)
    return Trainer(model, objective or NextToken(), stream, folder, chosen, **options)


def validation():
    rows = PackedRows(corpus_of_documents(documents((9, 14), seed=1)), 8)
    return batches(in_order(rows), 2)


def events(folder, kind="step"):
    return [event for event in read_events(folder / LOG) if event["event"] == kind]


def losses(folder):
    return [(event["step"], event["loss"]) for event in events(folder)]


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.network.named_parameters()}
