"""n-gram models on disk: a folder of config.json, words.json and model.safetensors.

config.json says `"model_type": "limner_ngram"` and the `order`. words.json lists the vocabulary.
The tensors of order k are `orders.k.keys` (64-bit integers, sorted: the number of the n-gram's
first k - 1 words in order k - 1, times the vocabulary's size, plus the last word),
`orders.k.logarithms` and `orders.k.backoffs` (32-bit, to base 10). They are read by memory map as
queries touch them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from limner.checkpoints.safetensors import SafetensorsFolder, write_safetensors
from limner.models.ngram import NGramModel, NGramVocabulary, Order

MODEL_TYPE = "limner_ngram"
PARTS = {"keys": "I64", "logarithms": "F32", "backoffs": "F32"}


def save_ngram(model: NGramModel, folder: Path) -> None:
    """Write the model into `folder`, made if missing.

    Raises OSError if the disk is full; the tensors of a model that was there before survive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(_tensors(model), folder, metadata={"format": "np"})
    words = json.dumps(model.vocabulary.words, ensure_ascii=False, indent=0)
    (folder / "words.json").write_text(words + "\n", encoding="utf-8")
    fields = {"model_type": MODEL_TYPE, "order": model.order, "vocab_size": len(model.vocabulary)}
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def open_ngram(folder: Path) -> NGramModel:
    """Open a model that `save_ngram` wrote.

    Raises FileNotFoundError if a file is missing, ValueError if the folder holds another kind of
    model or one that contradicts itself.
    """
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if fields.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"'{folder}' is a model of type '{fields.get('model_type')}', not '{MODEL_TYPE}'"
        )
    vocabulary = NGramVocabulary(json.loads((folder / "words.json").read_text(encoding="utf-8")))
    source = SafetensorsFolder(folder)
    orders = [_order(source, number) for number in range(1, fields["order"] + 1)]
    if not orders or len(orders[0].keys) != len(vocabulary):
        raise ValueError(f"'{folder}': words.json and the 1-grams differ: copy the folder again")
    return NGramModel(vocabulary, orders)


def _tensors(model: NGramModel) -> Iterator[tuple[str, Tensor]]:
    for number, order in enumerate(model.orders, 1):
        for part in PARTS:
            yield f"orders.{number}.{part}", torch.from_numpy(getattr(order, part))


def _order(source: SafetensorsFolder, number: int) -> Order:
    arrays = [_array(source, f"orders.{number}.{part}", kind) for part, kind in PARTS.items()]
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"'{source.path}': the tensors of order {number} differ in length")
    return Order(*arrays)


def _array(source: SafetensorsFolder, name: str, kind: str) -> NDArray[Any]:
    if source.format(name) != kind or len(source.shape(name)) != 1:
        raise ValueError(
            f"'{source.path}': {name} must be a list of {kind}, not {source.format(name)} "
            f"of shape {source.shape(name)}"
        )
    array: NDArray[Any] = source.read(name).numpy()
    return numpy.asarray(array)
