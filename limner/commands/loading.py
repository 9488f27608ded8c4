"""Settings of commands for models of any kind."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, TypeVar

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import progress_bar

Loaded = TypeVar("Loaded", covariant=True)


class Loader(Protocol[Loaded]):
    """A function that loads a model by its name."""

    def __call__(self, name_or_path: str, *, dtype: str, device: str, progress: Any) -> Loaded:
        """The model."""
        ...


class AnyModelSettings(CommandSettings):
    """Which model, and how it is loaded."""

    positional: ClassVar[tuple[str, ...]] = ("model", "text")

    model: str
    """a name of the catalogue (`limner pull` lists it), a folder, or OWNER/REPOSITORY of the hub"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """the number format of the weights; auto is float32 on a CPU, bfloat16 on a GPU if it can"""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto is the GPU if there is one"""

    def load_with(self, loader: Loader[Loaded]) -> Loaded:
        """The model, with a progress bar while it is fetched and read."""
        with progress_bar() as progress:
            return loader(self.model, dtype=self.dtype, device=self.device, progress=progress)
