"""A recorder for the CPU that keeps to what a CUDA graph keeps to."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limner.inference.graphs import refuse_questions


class Tape(TorchDispatchMode):
    """Notes each operator with its tensors; a replay runs no Python of the step's own.

    Results go to the memory that they had, from which the next operators read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result

    def replay(self) -> None:
        """Do it all again."""
        with torch.inference_mode():
            for func, args, kwargs, result in self.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class TapeRecorder:
    """Counts what it recorded and what was replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, step):
        """How to do `step` again, and where its result then stands."""
        refuse_questions(step)
        with Tape() as tape:
            result = step()
        self.recorded += 1

        def again() -> None:
            self.replayed += 1
            tape.replay()

        return again, result
