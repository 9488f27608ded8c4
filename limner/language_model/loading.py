"""From a name or a path to a language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import Checkpoint, open_checkpoint, read_json
from limner.config import nearest
from limner.language_model.abilities import require
from limner.language_model.model import LanguageModel
from limner.models.decoder import Decoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: What generation_config.json calls our sampling options.
OPTIONS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")

#: Called with what is being done ("downloading", "loading"), how much of it is done, and how much
#: there is: bytes to download, tensors to load.
Progress = Callable[[str, int, int], None]


def load(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    context: int | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """A language model by its name in the catalogue or on the hub, or from a folder or GGUF file.

    Args:
        name_or_path: a model that is not here yet is downloaded first.
        dtype: "float32", "bfloat16" or "float16"; "auto" is float32 on a CPU, where bfloat16 is
            several times slower unless it has units for it, and bfloat16 on a GPU.
        device: such as "cpu" or "cuda:1"; "auto" is the GPU if there is one.
        context: the longest prompt and answer in tokens, if shorter than the model's own; a shorter
            one takes less memory.
        progress: called with ("downloading", bytes, bytes in all) and ("loading", tensors,
            tensors in all).

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: a damaged or unsupported checkpoint, or an impossible dtype, device or context.
        OSError: it could not be downloaded.
    """
    where = choose_device(device)
    numbers = choose_dtype(dtype, where)
    report = progress or (lambda stage, done, total: None)
    path = resolve(str(name_or_path), partial(report, "downloading"))
    checkpoint = open_checkpoint(path)
    network = checkpoint.network(numbers, where, partial(report, "loading"))
    require("generate", str(name_or_path), network)
    assert isinstance(network, Decoder)
    return LanguageModel(
        str(name_or_path),
        network,
        checkpoint.tokenizer(),
        defaults=generation_defaults(checkpoint),
        context=context,
    )


def choose_device(device: str | torch.device) -> torch.device:
    """The device meant; ValueError if there is none of this name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device '{device}': say cpu, cuda, cuda:1 ... or auto") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device '{device}' is not here: {torch.cuda.device_count()} GPUs are")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The number format meant; ValueError suggests the nearest."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype '{dtype}'{nearest(dtype, ['auto', *DTYPES])}")
    return DTYPES[dtype]


def generation_defaults(checkpoint: Checkpoint) -> dict[str, Any]:
    """Sampling options from generation_config.json, where the folder has one.

    `do_sample` false means temperature 0.
    """
    path = checkpoint.path / "generation_config.json"
    if not path.is_file():
        return {}
    fields = read_json(path)
    options = {name: fields[name] for name in OPTIONS if fields.get(name) is not None}
    if fields.get("do_sample") is False:
        options["temperature"] = 0.0
    return options
