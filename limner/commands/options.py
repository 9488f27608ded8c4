"""Settings that several commands have."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import progress_bar

if TYPE_CHECKING:
    from limner.language_model import LanguageModel

#: What commands sample with where neither the user nor the model says anything: the most probable
#: answer, which is a small model's soundest and the same each time.
COMMAND_DEFAULTS = {"temperature": 0.0}


class LoadingSettings(CommandSettings):
    """How models are loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """the number format of the weights; auto is float32 on a CPU, bfloat16 on a GPU if it can"""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto is the GPU if there is one"""
    weights: Literal["auto", "stored", "float", "int8", "int4", "fp8", "parameters"] = "auto"
    """what the matrices' numbers become: as the file holds them (stored), floats, rounded to 8 or 4
    bits or to floats of 8 bits (fp8), or PyTorch's own parameters; auto is stored where limner's
    kernels run"""
    activation_bits: Literal[8, 16] = 16
    """how activations meet weights of few bits: 16 answers as float activations do, 8 as llama.cpp
    does, faster with many streams and long prompts"""
    context: int | None = None
    """the longest prompt and answer in tokens, if shorter than the model's own; saves memory"""
    cache_bits: int | None = None
    """8 keeps what is remembered of texts in a quarter of the memory"""
    draft: str | None = None
    """who guesses tokens ahead, to be faster with the same answers: lookup (what repeats), heads
    (the model's own, if it has any), or a smaller model with the same tokens"""

    def how(self) -> dict[str, Any]:
        """These settings, as `limner.load` takes them."""
        return {name: getattr(self, name) for name in LoadingSettings.model_fields}


@contextmanager
def uncollected() -> Iterator[None]:
    """Import PyTorch in this block without looking for garbage in it, then or later.

    That takes a fifth of the time of the import, and what is imported stays for good.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class ModelSettings(LoadingSettings):
    """Which model, and how it is loaded."""

    positional: ClassVar[tuple[str, ...]] = ("model",)

    model: str
    """a name of the catalogue (`limner pull` lists it), a folder, a .gguf file, or OWNER/REPOSITORY
    of the hub"""

    def load(self) -> LanguageModel:
        """The model, with a progress bar while it is fetched and read."""
        with uncollected():
            from limner import load

        with progress_bar() as progress:
            model = load(self.model, **self.how(), progress=progress)
        model.defaults = COMMAND_DEFAULTS | model.defaults
        return model


#: What commands call the one adapter they may be given.
ADAPTER = "adapter"


class AdaptedSettings(ModelSettings):
    """Which model, with an adapter or without."""

    adapter: Path | None = None
    """a folder with a LoRA adapter for the model, as the peft library saves it"""

    def load(self) -> LanguageModel:
        """The model, with the adapter attached if one is given."""
        model = super().load()
        if self.adapter is not None:
            model.attach(ADAPTER, self.adapter)
        return model

    @property
    def adapter_name(self) -> str | None:
        """What the model calls the adapter, if one is given."""
        return None if self.adapter is None else ADAPTER


class SamplingSettings(CommandSettings):
    """How the next token is chosen; limner.Sampling says more. Not given: the model's own."""

    temperature: float | None = None
    """0 takes the most probable token, 1 draws from the model's own distribution"""
    top_k: int | None = None
    """draw from the k most probable tokens only; 0 is off"""
    top_p: float | None = None
    """draw from the fewest tokens that together have this probability; 1 is off"""
    min_p: float | None = None
    """draw from tokens at least this share as probable as the best; 0 is off"""
    repetition_penalty: float | None = None
    """above 1 makes tokens of the prompt and the answer less likely"""
    frequency_penalty: float | None = None
    """-2 to 2: for each time a token is in the answer"""
    presence_penalty: float | None = None
    """-2 to 2: for tokens that are in the answer"""
    logit_bias: dict[int, float] | None = None
    """added to tokens' logits, such as '{2: -5}'; -.inf bans a token"""
    seed: int | None = None
    """makes the answer repeatable"""
    max_tokens: int | None = None
    """tokens to generate at most; not given: 1024, or what is left of the context"""
    stop: list[str] | None = None
    """text that ends the answer; can be given several times"""
    stop_tokens: list[int] | None = None
    """token ids that end the answer, beside the model's own"""
    ignore_eos: bool | None = None
    """go on after the model's end token"""

    def sampling(self) -> dict[str, Any]:
        """The options that were given; ValueError if one is out of range."""
        from limner.inference.sampling import Sampling

        values = ((name, getattr(self, name)) for name in SamplingSettings.model_fields)
        given = {name: value for name, value in values if value is not None}
        Sampling(**given)
        return given
