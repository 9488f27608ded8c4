"""State: what a layer may see of other tokens. The state does the attending.

B batch, T time, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from limner.nn.carried import Recurrence
from limner.nn.scoring import Scoring, attention


class State(ABC):
    """One forward pass asks `begin`, then `attend` once a layer, then `end`."""

    #: Whether tokens can be taken back (speculation asks this, not the type).
    can_rewind: bool = False
    #: Whether keys are kept for later passes, so that a layer had better make them small.
    keeps: bool = False

    def begin(self, batch: int, time: int) -> State:
        """The state for a forward pass over `batch` x `time` tokens."""
        return self

    @abstractmethod
    def positions(self, batch: int, time: int, device: torch.device) -> Tensor:
        """Where the next `batch` x `time` tokens stand in their texts, (B, T) int64."""

    def text_lengths(self, positions: Tensor) -> Tensor:
        """How long the text of each token is now, (B, T) on the CPU: a row is a text, if not else.

        `positions` (B, T) are this state's own. What depends on a text's length asks this, so that
        no text's result depends on others beside it.
        """
        return (positions.max(1, keepdim=True).values + 1).expand_as(positions).cpu()

    @abstractmethod
    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Mix values for `query` (B, T, H, W) from `key`, `value` (B, T, K, W) and what is kept."""

    def scan(self, mixer: Recurrence, inputs: Tensor) -> Tensor:
        """Run a recurrent layer over `inputs` (B, T, ...) from what it carries of each text."""
        raise ValueError(
            f"layer {mixer.layer} is recurrent and {type(self).__name__} carries nothing from "
            "token to token: use Documents or DenseCache"
        )

    def neighbours(self, hidden: Tensor, offset: int) -> Tensor:
        """The `hidden` vectors (B, T, D) that stand `offset` places later, 0 outside the text."""
        raise ValueError(
            f"a convolution looks at whole texts and {type(self).__name__} does not hold them: "
            "use Documents"
        )

    def end(self) -> None:
        """The forward pass is over: what it wrote now counts."""
        return  # most states have nothing to do


class Documents(State):
    """Whole texts at once, nothing kept: training and encoders.

    `documents` (B, T) numbers the text each token belongs to; no text sees another, so several can
    be packed in a row, and padding is a text of its own. None: each row is one text.
    """

    def __init__(self, documents: Tensor | None = None) -> None:
        self.documents = documents
        self._visible: dict[tuple[object, ...], Tensor | None] = {}
        self._starts: Tensor | None = None

    def positions(self, batch: int, time: int, device: torch.device) -> Tensor:
        """Places counted from the first token of each text."""
        index = torch.arange(time, device=device).expand(batch, time)
        starts = self.starts()
        if starts is None:
            return index
        return index - torch.where(starts, index, 0).cummax(1).values

    def starts(self) -> Tensor | None:
        """Where texts begin, (B, T); None when only rows begin texts."""
        if self._starts is None and self.documents is not None:
            self._starts = torch.ones_like(self.documents, dtype=torch.bool)
            self._starts[:, 1:] = self.documents[:, 1:] != self.documents[:, :-1]
        return self._starts

    def neighbours(self, hidden: Tensor, offset: int) -> Tensor:
        """The `hidden` vectors (B, T, D) that stand `offset` places later, 0 outside the text."""
        moved = torch.roll(hidden, -offset, 1)
        index = torch.arange(hidden.shape[1], device=hidden.device)[None] + offset  # (1, T)
        inside = (index >= 0) & (index < hidden.shape[1])
        if self.documents is not None:
            inside = inside & (torch.roll(self.documents, -offset, 1) == self.documents)
        return moved * inside[..., None]

    def text_lengths(self, positions: Tensor) -> Tensor:
        """How long the text of each token is, (B, T)."""
        starts = self.starts()
        if starts is None:
            return super().text_lengths(positions)
        text = starts.flatten().cumsum(0) - 1  # which of all texts a token stands in
        return text.bincount()[text].view_as(positions).cpu()

    def scan(self, mixer: Recurrence, inputs: Tensor) -> Tensor:
        """Run a recurrent layer over each text from its beginning."""
        fresh = mixer.cache_shape.new(inputs.shape[0], inputs.dtype, inputs.device)
        return mixer.recur(inputs, fresh, self.starts())[0]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Mix values among the tokens of the same text."""
        query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
        time = query.shape[2]
        index = torch.arange(time, device=query.device)[None]  # (1, T)
        bias = None if scoring.bias is None else scoring.bias(index, index)
        near = scoring.window is None or scoring.window >= time
        plain = self.documents is None and near and scoring.pattern is None
        if plain and bias is None:
            mixed = attention(query, key, value, scoring, causal=scoring.causal)
        else:
            mixed = attention(query, key, value, scoring, self.visible(scoring, index), bias)
        return mixed.transpose(1, 2)

    def visible(self, scoring: Scoring, index: Tensor) -> Tensor | None:
        """Which tokens see which, worked out once for all layers that score alike."""
        kind = (scoring.causal, scoring.window, scoring.pattern, index.shape[1])
        if kind not in self._visible:
            seen = scoring.visible(index, index)
            if self.documents is not None:
                same = (self.documents[:, :, None] == self.documents[:, None, :])[:, None]
                seen = same if seen is None else seen & same
            self._visible[kind] = seen
        return self._visible[kind]
