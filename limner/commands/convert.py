"""`limner convert`: turn a model into a folder that transformers opens, or into a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import progress_bar, remark

if TYPE_CHECKING:
    import torch

    from limner.checkpoints.checkpoint import Checkpoint
    from limner.models.network import Network


class Command(CommandSettings):
    """Turn a model into a folder for transformers or a GGUF file for llama.cpp.

    A folder gets config.json, safetensors, tokenizer.json and the chat template. Weights in block
    formats become plain numbers there, and other blocks in a GGUF file. What GPTQ, AWQ and
    compressed-tensors folders keep in groups is written to a GGUF file as it is.
    """

    positional: ClassVar[tuple[str, ...]] = ("source", "target")

    source: str
    """the model: a .gguf file, a folder, or a name"""
    target: Path
    """the folder to write, made if missing, or the .gguf file"""
    to: Literal["auto", "folder", "gguf"] = "auto"
    """what to write; auto is gguf if the target ends in .gguf, else a folder"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """the number format of a folder; auto is the source's own, and float32, which loses nothing,
    for block formats"""
    format: str | None = None
    """the number format of a GGUF file: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0; if not
    given, F16, but a quantised folder's 8 or 4 bits as they are, Q8_0, Q4_1 or Q4_0"""
    force: bool = False
    """write into a folder that is not empty, or over a file; a model that is there is replaced"""

    @property
    def writes_gguf(self) -> bool:
        """Whether the target is a GGUF file."""
        return self.to == "gguf" or (self.to == "auto" and self.target.suffix == ".gguf")


def run(settings: Command) -> None:
    """Read the source and write the target; print where it is."""
    if settings.writes_gguf:
        refuse_to_replace(settings.target, settings.force)
        refuse(settings.dtype != "auto", "dtype", "format", "folder")
    else:
        refuse_to_overwrite(settings.target, settings.force)
        refuse(settings.format is not None, "format", "dtype", "GGUF file")
    with progress_bar() as progress:
        write = write_gguf if settings.writes_gguf else write_folder
        write(settings, progress or (lambda stage, done, total: None))
    print(settings.target)


Report = Callable[[str, int, int], None]


def write_folder(settings: Command, report: Report) -> None:
    """Write what transformers opens."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.checkpoint import open_checkpoint, save_folder

    checkpoint = open_checkpoint(resolve(settings.source))
    network = checkpoint.network(
        choose_dtype(settings.dtype, checkpoint), progress=partial(report, "loading")
    )
    save_folder(network, settings.target, checkpoint.tokenizer())


def write_gguf(settings: Command, report: Report) -> None:
    """Write what llama.cpp opens."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.gguf_pooling import write_pooling
    from limner.checkpoints.gguf_writing import STORED, check_format, save_gguf
    from limner.checkpoints.sentence import open_sentence_encoder
    from limner.models.encoder import Encoder

    format = (settings.format or "F16").upper()
    check_format(format)
    opened = open_sentence_encoder(resolve(settings.source))
    checkpoint, loading = opened.checkpoint, partial(report, "loading")
    numbers = quantized_numbers(checkpoint)
    if numbers and (settings.format is None or format.startswith("Q")):
        format = format if settings.format else STORED
        network = checkpoint.network(progress=loading, weights="stored")
        say_what_is_rounded(network, format, numbers)
    else:
        network = checkpoint.network(choose_dtype("auto", checkpoint), progress=loading)
    pooling = {}
    if isinstance(network, Encoder):
        pooling = write_pooling(network.config.family, opened.pooling, opened.steps)
    written = partial(report, "writing")
    tokenizer = opened.tokenizer()
    save_gguf(
        network,
        settings.target,
        tokenizer,
        format,
        vocabulary="F16",
        metadata=pooling,
        progress=written,
    )


def quantized_numbers(checkpoint: Checkpoint) -> int:
    """How many numbers a quantised folder keeps in a few bits; 0 of any other source."""
    from limner.checkpoints.quantized import QuantizedTensors

    source = checkpoint.source
    if not isinstance(source, QuantizedTensors):
        return 0
    return sum(prod(source.shape(name)) for name in source.parts)


def say_what_is_rounded(network: Network, format: str, numbers: int) -> None:
    """A line about quantised matrices that the GGUF file does not keep as they are, if any."""
    from limner.checkpoints.gguf_writing import STORED, count_kept

    rounded = 1 - count_kept(network, format) / numbers
    if rounded > 0:
        reason, becomes = f"are not in {format} there", f"are rounded to {format}"
        if format == STORED:
            reason, becomes = (
                "have no form in GGUF (like act-order or 8 bits with zeros)",
                "become F16",
            )
        remark(f"{rounded:.1%} of the quantised weights {reason} and {becomes}")


def refuse(given: bool, setting: str, right: str, of: str) -> None:
    """ValueError if a setting was given that the target has no use for."""
    if given:
        raise ValueError(f"{setting} is the number format of a {of}: say {right} instead")


def refuse_to_replace(file: Path, force: bool) -> None:
    """ValueError if the file is there and `force` is off."""
    if file.is_dir():
        raise ValueError(f"'{file}' is a folder: name a .gguf file to write")
    if file.exists() and not force:
        raise ValueError(f"'{file}' is there already: name another file, or give --force")


def refuse_to_overwrite(folder: Path, force: bool) -> None:
    """ValueError if the folder holds something and `force` is off."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"'{folder}' is a file: name a folder to write")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty: name another folder, or give --force")


def choose_dtype(dtype: str, checkpoint: Checkpoint) -> torch.dtype:
    """The number format to write: that named, or the only plain one of the source."""
    from limner.language_model.loading import DTYPES

    if dtype != "auto":
        return DTYPES[dtype]
    source = checkpoint.source
    matrices = {source.format(name) for name in source.names() if len(source.shape(name)) > 1}
    plain = {"F16": "float16", "BF16": "bfloat16"}
    return DTYPES[plain.get(matrices.pop(), "float32") if len(matrices) == 1 else "float32"]
