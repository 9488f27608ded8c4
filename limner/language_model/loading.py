"""From a name or a path to a language model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from limner import kernels
from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import Checkpoint, open_checkpoint, read_json
from limner.config import nearest
from limner.language_model.abilities import require
from limner.language_model.drafting import speculation_for
from limner.language_model.memory import give_back
from limner.language_model.model import LanguageModel
from limner.models.decoder import Decoder
from limner.nn.packed import Weights, set_activation_bits
from limner.nn.scaled import FLOAT8
from limner.quantization.loading import holds_rows, place_outliers, place_rows, round_layers

#: What may become of the matrices' numbers.
WEIGHTS = ("auto", *get_args(Weights), "fp8", "parameters")

#: What matrices are rounded to where kernels do not run, with a scale for each row.
ROUNDED = {"int8": torch.int8, "fp8": FLOAT8}

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
    weights: str = "auto",
    activation_bits: Literal[8, 16] = 16,
    context: int | None = None,
    cache_bits: int | None = None,
    draft: str | Path | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """A language model by its name in the catalogue or on the hub, or from a folder or GGUF file.

    Args:
        name_or_path: a model that is not here yet is downloaded first.
        dtype: "float32", "bfloat16" or "float16"; "auto" is float32 on a CPU, where bfloat16 is
            several times slower unless it has units for it, and on a GPU bfloat16 from capability
            8.0 (Ampere) on, float16 from 7.0, and float32 before.
        device: such as "cpu" or "cuda:1"; "auto" is the GPU if there is one.
        weights: what the matrices' numbers become. "stored": what the file holds; blocks of few
            bits are computed with as they are. "float": floats of the same values. "int8", "int4":
            rounded to so many bits in groups of 32. These four are packed for limner's kernels on
            a CPU and cannot be trained; "parameters" are PyTorch's own, in `dtype`. On a GPU
            "int8", and anywhere "fp8", are 8 bits with a scale for each row, in the linear layers
            of the blocks. "auto" is "stored" where kernels run it, and for rows of 8 bits on a GPU.
        activation_bits: with how many bits activations meet weights of few bits in kernels. 16
            gives the answers of float activations; 8 is what llama.cpp does, and faster with many
            streams and long prompts. GPUs that multiply floats of 8 bits (from capability 8.9 on)
            round activations in bfloat16 to such where weights are "fp8".
        context: the longest prompt and answer in tokens, if shorter than the model's own; a shorter
            one takes less memory.
        cache_bits: 8 keeps what is remembered of a text (keys and values) in a quarter of float32's
            memory; as it is computed if not given.
        draft: who guesses tokens ahead, so that answers come faster where guesses are right, and
            stay the same: "lookup" (what followed the last words before), "heads" (the model's
            own, if it has any that predict further), or the name or path of a smaller model with
            the same tokens; nobody if not given.
        progress: called with ("downloading", bytes, bytes in all) and ("loading", tensors,
            tensors in all).

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: a damaged or unsupported checkpoint, or an impossible dtype, device, weights,
            context or draft.
        OSError: it could not be downloaded.
    """
    read = partial(
        _read,
        dtype=dtype,
        device=device,
        weights=weights,
        activation_bits=activation_bits,
        progress=progress or (lambda stage, done, total: None),
    )
    model = read(name_or_path, context=context, cache_bits=cache_bits)
    if draft is not None:
        model.speculation = speculation_for(model, draft, read)
    give_back()
    return model


def _read(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype,
    device: str | torch.device,
    weights: str,
    activation_bits: Literal[8, 16],
    progress: Progress,
    context: int | None = None,
    cache_bits: int | None = None,
) -> LanguageModel:
    """What `load` does, but for guessing ahead."""
    if activation_bits not in (8, 16):
        raise ValueError(f"activation_bits must be 8 or 16, not {activation_bits}")
    where = choose_device(device)
    numbers = choose_dtype(dtype, where)
    packing = choose_weights(weights, numbers, where)
    checkpoint = open_checkpoint(resolve(str(name_or_path), partial(progress, "downloading")))
    rounded = ROUNDED.get(weights) if packing is None else None
    kept = kept_rows(weights, rounded, where) if holds_rows(checkpoint) else ()
    # Matrices that become smaller never lie on a GPU as a whole.
    first = torch.device("cpu") if rounded or kept else where
    network = checkpoint.network(numbers, first, partial(progress, "loading"), packing)
    set_activation_bits(network, activation_bits)
    if packing == "stored":
        place_outliers(network, checkpoint)
    if kept:
        place_rows(network, checkpoint, kept)
    if rounded is not None:
        round_layers(network, rounded, where)
    if first != where:
        network.to(where)
    require("generate", str(name_or_path), network)
    assert isinstance(network, Decoder)
    return LanguageModel(
        str(name_or_path),
        network,
        checkpoint.tokenizer(),
        defaults=generation_defaults(checkpoint),
        context=context,
        cache_bits=cache_bits,
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
    if dtype == "auto" and device.type == "cuda":
        return fastest_dtype(torch.cuda.get_device_capability(device))
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype '{dtype}'{nearest(dtype, ['auto', *DTYPES])}")
    return DTYPES[dtype]


def fastest_dtype(capability: tuple[int, int]) -> torch.dtype:
    """What a GPU of this capability multiplies fastest; bfloat16, of a wider range, if it can."""
    if capability >= (8, 0):
        return torch.bfloat16
    return torch.float16 if capability >= (7, 0) else torch.float32


def choose_weights(weights: str, dtype: torch.dtype, device: torch.device) -> Weights | None:
    """How matrices are packed, or None if they stay PyTorch's; ValueError if that cannot be."""
    if weights not in WEIGHTS:
        raise ValueError(f"unknown weights '{weights}'{nearest(weights, WEIGHTS)}")
    runs = kernels.current() is not None and device.type == "cpu" and dtype == torch.float32
    if weights in ("parameters", "fp8") or (weights in ("auto", "float", "stored") and not runs):
        return None
    if device.type != "cpu" or dtype != torch.float32:
        if weights in ROUNDED:
            return None
        raise ValueError(
            f"weights={weights} are for float32 on the CPU, not {dtype} on {device}: "
            f"say {' or '.join(ROUNDED)}"
        )
    return "stored" if weights == "auto" else cast("Weights", weights)


def kept_rows(
    weights: str, rounded: torch.dtype | None, device: torch.device
) -> Collection[torch.dtype]:
    """Which matrices of 8 bits with a scale for each row are computed with as a folder has them.

    `rounded` is what all others become, if anything. On a CPU whole floats are faster than those of
    8 bits, so these must be asked for, and int8 is for the kernels.
    """
    if rounded is not None:
        return (rounded,)
    if weights == "stored" or (weights == "auto" and device.type == "cuda"):
        return (FLOAT8,) if device.type == "cpu" else (FLOAT8, torch.int8)
    return ()


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
