"""What objectives of encoder-decoders share: rows with their frames taken off, and teacher forcing.

B batch, S source time, T target time, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy
import torch
from torch import nn

from limner.data.batches import Batch
from limner.data.corpus import Integers
from limner.models.encoder_decoder import EncoderDecoder
from limner.objectives.cross_entropy import cross_entropy
from limner.objectives.loss import Loss


class Text(NamedTuple):
    """A row's text between the special tokens it begins and ends with, and its seed."""

    before: Integers
    body: Integers
    after: Integers
    seed: int


def texts(batch: Batch, special: Integers) -> Iterator[Text]:
    """The rows of a batch without padding."""
    tokens, mask = batch.tokens.cpu().numpy(), batch.mask.cpu().numpy()
    for row, there, seed in zip(tokens, mask, batch.seeds, strict=True):
        text = row[there]
        ordinary = numpy.flatnonzero(~numpy.isin(text, special))
        start, end = (ordinary[0], ordinary[-1] + 1) if len(ordinary) else (0, 0)
        yield Text(text[:start], text[start:end], text[end:], seed)


def translation_loss(
    network: nn.Module, sources: Sequence[Integers], targets: Sequence[Integers]
) -> Loss:
    """Cross-entropy of writing each target after reading its source.

    The decoder reads the start token and then the target itself, one place late.
    """
    assert isinstance(network, EncoderDecoder)
    config = network.config
    device = network.decoder.embedding.tokens.weight.device
    source, mask = _padded(sources, config.padding, device)  # (B, S)
    target, weights = _padded(targets, config.padding, device)  # (B, T)
    started = torch.cat([torch.full_like(target[:, :1], config.start), target[:, :-1]], 1)
    hidden = network(started, state=network.read(source, mask))  # (B, T, D)
    return cross_entropy(network.head, hidden, target, weights.to(hidden.dtype))


def _padded(
    rows: Sequence[Integers], padding: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows filled up to the longest, and where they are not padding."""
    longest = max(map(len, rows))
    tokens = numpy.full((len(rows), longest), padding, numpy.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(longest) < lengths[:, None]
    return torch.from_numpy(tokens).to(device), mask.to(device)
