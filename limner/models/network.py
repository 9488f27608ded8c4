"""What the stacks have in common: a config, tied heads, random weights to begin with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from limner.models.block import BlockConfig

#: Projections that write to the residual stream, by the ends of their names.
LAST = (".mixer.output", ".cross.output", ".feedforward.down", ".shared.down")


class _Uninitialised(TorchFunctionMode):
    """Leaves out the random numbers that modules begin with.

    A tensor without contents needs none, and PyTorch imports its compiler to draw them: 800 files,
    70 MB and half a second.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def without_contents() -> Iterator[None]:
    """Modules made in this block have shapes only (PyTorch's meta device)."""
    with torch.device("meta"), _Uninitialised():
        yield


class NetworkConfig(Protocol):
    """Settings that can make a network; `family` names the file that reads and writes them."""

    @property
    def family(self) -> str:
        """The file in `families/` that translates this config."""
        ...

    @property
    def width(self) -> int:
        """The width of the stream."""
        ...

    @property
    def context(self) -> int:
        """The longest text it was made for."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The layers."""
        ...

    def build(self) -> Network:
        """Make the network, its weights not yet set."""
        ...


class Network(nn.Module, ABC):
    """A stack with its heads."""

    config: NetworkConfig

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The numbers it computes in."""
        return next((p.dtype for p in self.parameters()), torch.float32)

    @abstractmethod
    def tie(self) -> None:
        """Let several places use one parameter, where the config says so."""

    def do_without(self, names: Collection[str]) -> None:
        """Take out the parts that the parameters of these `names` make, for want of weights.

        Raises ValueError if the network needs them.
        """
        raise ValueError(f"the checkpoint has no tensor for '{min(names)}': it is not whole")

    def initialise(self, deviation: float = 0.02, generator: torch.Generator | None = None) -> None:
        """Random weights as GPT-2 (Radford et al. 2019).

        Normal with `deviation`; the projections that write to the residual stream are divided by
        sqrt(2 x layers), so that the stream's size does not depend on depth; biases zero.
        """
        narrow = deviation / math.sqrt(2 * max(len(self.config.blocks), 1))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                scale = narrow if name.endswith(LAST) else deviation
                nn.init.normal_(module.weight, std=scale, generator=generator)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif hasattr(module, "randomise"):
                module.randomise(deviation, narrow, generator)
            elif hasattr(module, "reset"):
                module.reset()
