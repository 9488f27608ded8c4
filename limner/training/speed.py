"""How fast a run is, and what share that is of what the machine could do."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from limner.models.counting import operations_per_token
from limner.models.decoder import Decoder

SIZE, TRIALS = 1024, 8
STATUS = Path("/proc/self/status")


def matrix_product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest of some large matrix products, measured now."""
    left = torch.randn(SIZE, SIZE, device=device, dtype=dtype)
    times = [_time(left) for _ in range(TRIALS)]
    return float(2 * SIZE**3 / min(times))


def _time(matrix: torch.Tensor) -> float:
    started = time.perf_counter()
    _ = (matrix @ matrix)[0, 0].item()  # waits for a GPU
    return time.perf_counter() - started


def training_operations(network: nn.Module, length: int) -> int:
    """Operations of training on one token of rows of `length`: forward, and twice that backward."""
    if isinstance(network, Decoder):
        return 3 * operations_per_token(network, max(length // 2, 1))
    tables = {m.weight for m in network.modules() if isinstance(m, nn.Embedding)}
    return 6 * sum(p.numel() for p in network.parameters() if p.ndim > 1 and p not in tables)


def memory_used(device: torch.device) -> int:
    """The most memory that this process has had, in bytes: the GPU's if it runs on one."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if STATUS.exists():
        # Not getrusage: there Linux counts what the process had been before it ran this program.
        words = STATUS.read_text().split()
        return int(words[words.index("VmHWM:") + 1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # kilobytes everywhere else


class Meter:
    """Tokens a second of the last twenty steps, and their share of the `peak`, if that is known."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.peak: float | None = None
        self.recent: list[Pace] = []
        self._operations: dict[int, int] = {}

    def note(self, seconds: float, tokens: int, length: int) -> None:
        """A step took so long for so many tokens, in rows of `length`."""
        if length not in self._operations:
            self._operations[length] = training_operations(self.network, length)
        pace = Pace(seconds, tokens, tokens * self._operations[length])
        self.recent = [*self.recent[-19:], pace]

    @property
    def seconds(self) -> float:
        """A step."""
        return sum(pace.seconds for pace in self.recent) / len(self.recent)

    @property
    def tokens_per_second(self) -> float:
        """Padding does not count."""
        return sum(pace.tokens for pace in self.recent) / len(self.recent) / self.seconds

    @property
    def peak_share(self) -> float | None:
        """What is computed a second, of what was measured as the peak."""
        if self.peak is None:
            return None
        operations = sum(pace.operations for pace in self.recent) / len(self.recent)
        return operations / self.seconds / self.peak


class Pace(NamedTuple):
    """What one step took and did."""

    seconds: float
    tokens: int
    operations: int
