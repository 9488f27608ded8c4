"""Perplexity of a text, exact: every token is predicted once, from the tokens before it.

T time, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from limner.models.decoder import Decoder
from limner.objectives.cross_entropy import cross_entropy
from limner.tokenizers import Tokenizer

#: Tokens read at once, unless the model's context is shorter.
WINDOW = 512


@dataclass(frozen=True)
class Perplexity:
    """The summed surprise of a text in nats, and how many tokens and bytes it was summed over."""

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """The exponential of the mean surprise of a token; compares models of one tokenizer."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Bits for a byte of text; compares models of any tokenizers."""
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `end` - 1 are read; those from `first` to `end` are predicted."""

    start: int
    end: int
    first: int


def windows(tokens: int, length: int, stride: int) -> Iterator[Window]:
    """Windows of `length` tokens, each `stride` further, that predict each token but 0 once.

    A token is predicted from at least `length - stride` before it, where there are so many.
    """
    predicted = 0
    for start in range(0, tokens - 1, stride):
        end = min(start + length, tokens - 1)
        yield Window(start, end, predicted + 1)
        predicted = end
        if end == tokens - 1:
            return


@torch.inference_mode()
def perplexity(
    network: Decoder,
    tokenizer: Tokenizer,
    text: str,
    *,
    window: int | None = None,
    stride: int | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """How surprised `network` is by `text`.

    Args:
        network: a decoder.
        tokenizer: its tokenizer.
        text: what is predicted, but for its first token if the model's input has no BOS.
        window: tokens read at once; 512 or the model's context if not given.
        stride: tokens from a window to the next; the whole window if not given. A smaller one gives
            each token more context, and takes longer.
        limit: only the first so many tokens count.
        progress: called with (tokens predicted, tokens in all).

    Raises:
        ValueError: the text has fewer than two tokens, or window or stride are out of range.
    """
    length = min(WINDOW, network.config.context) if window is None else window
    step = length if stride is None else stride
    if not 1 <= length <= network.config.context:
        raise ValueError(f"window must be from 1 to {network.config.context}, not {length}")
    if not 1 <= step <= length:
        raise ValueError(f"stride must be from 1 to the window of {length}, not {step}")
    tokens = _tokens(tokenizer, text)[:limit]
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} tokens leave nothing to predict: give a longer text")
    nats = 0.0
    for part in windows(len(tokens), length, step):
        nats += surprise(network, tokens, part)
        if progress is not None:
            progress(part.end, len(tokens) - 1)
    scored = sum(len(tokenizer.token_bytes(token)) for token in tokens[1:])
    return Perplexity(nats, len(tokens) - 1, scored)


def _tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text, after the BOS if the model's input begins with one."""
    opening = tokenizer.encode("")[:1]
    plain = tokenizer.encode(text, add_special_tokens=False)
    return [*opening, *plain] if opening == [tokenizer.bos_id] else plain


def surprise(network: Decoder, tokens: Sequence[int], window: Window) -> float:
    """The summed surprise in nats of the tokens that a window predicts."""
    device = next(network.parameters()).device
    read = torch.tensor([tokens[window.start : window.end]], device=device)
    targets = torch.tensor(tokens[window.start + 1 : window.end + 1], device=device)
    weights = torch.ones(len(targets), device=device)
    weights[: window.first - window.start - 1] = 0
    return float(cross_entropy(network.head, network(read)[0], targets, weights).total)
