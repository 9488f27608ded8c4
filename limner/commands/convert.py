"""`limner convert`: turn a GGUF file into a folder that transformers opens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import progress_bar

if TYPE_CHECKING:
    import torch

    from limner.checkpoints.checkpoint import Checkpoint


class Command(CommandSettings):
    """Turn a GGUF file into a folder that transformers opens.

    The folder gets config.json, safetensors, tokenizer.json and the chat template. Weights in block
    formats become plain numbers.
    """

    positional: ClassVar[tuple[str, ...]] = ("source", "folder")

    source: str
    """the model: a .gguf file, a folder, or a name"""
    folder: Path
    """where to write; made if missing"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """the number format to write; auto is the source's own, and float32, which loses nothing, for
    block formats"""
    force: bool = False
    """write into a folder that is not empty; a model in it is replaced"""


def run(settings: Command) -> None:
    """Read the source and write the folder; print where it is."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.checkpoint import open_checkpoint, save_folder

    refuse_to_overwrite(settings.folder, settings.force)
    with progress_bar() as progress:
        report = partial(progress, "loading") if progress else None
        checkpoint = open_checkpoint(resolve(settings.source))
        network = checkpoint.network(choose_dtype(settings.dtype, checkpoint), progress=report)
        tokenizer = checkpoint.tokenizer()
    save_folder(network, settings.folder, tokenizer)
    print(settings.folder)


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
