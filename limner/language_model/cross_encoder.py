"""Two texts in, how well they fit out (Nogueira and Cho 2019).

B batch, T time, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import open_checkpoint
from limner.language_model.loading import Progress, choose_device, choose_dtype
from limner.models.decoder import Decoder
from limner.models.encoder import Encoder
from limner.models.heads import ClassifierConfig
from limner.models.network import NetworkConfig
from limner.nn.state import Documents
from limner.tokenizers import Tokenizer

#: Tokens, padding counted, that are computed at once.
BATCH_TOKENS = 8192


class CrossEncoder:
    """A network with a head of one label that reads two texts together, and its tokenizer.

    Raises ValueError if it has no such head.
    """

    def __init__(self, name: str, network: Encoder | Decoder, tokenizer: Tokenizer) -> None:
        if pair_labels(network.config) != 1:
            raise ValueError(
                f"'{name}' gives no one score of two texts: that takes a head of one label, "
                f"and it has {pair_labels(network.config) or 'no head of labels'}"
            )
        self.name, self.network, self.tokenizer = name, network, tokenizer
        self.longest = network.config.context

    def __repr__(self) -> str:
        return f"CrossEncoder('{self.name}')"

    def encode(
        self, first: str, second: str, *, truncate: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Token ids (T,) of two texts and which text each is of (T,), 0 or 1.

        With `truncate` the end of the second text is left out, so that at most so many tokens
        remain. Raises ValueError if they are more than the network takes.
        """
        ids, segments = self.tokenizer.encode_pair(first, second)
        if truncate is not None and len(ids) > truncate:
            ids, segments = self._shortened(first, second, truncate)
        if not 0 < len(ids) <= self.longest:
            raise ValueError(
                f"the two texts have {len(ids)} tokens together, but '{self.name}' takes from 1 "
                f"to {self.longest}"
            )
        return ids, segments

    def _shortened(self, first: str, second: str, most: int) -> tuple[list[int], list[int]]:
        """A pair of at most `most` tokens, if the first text leaves room for that."""
        pair = self.tokenizer.encode_pair(first, second)
        while len(pair.ids) > most and second:
            pieces = self.tokenizer.pieces(second)
            kept = max(0, len(pieces) - (len(pair.ids) - most))
            # a text that was cut may be spelt in more tokens than were kept, so this is repeated
            second = second[: pieces[kept].start] if kept else ""
            pair = self.tokenizer.encode_pair(first, second)
        return pair.ids, pair.segments

    @torch.inference_mode()
    def scores(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """How well the texts of each encoded pair fit, from 0 to 1; each as if it were alone."""
        found = [0.0] * len(pairs)
        by_length = sorted(range(len(pairs)), key=lambda number: -len(pairs[number][0]))
        while by_length:
            count = max(1, BATCH_TOKENS // len(pairs[by_length[0]][0]))
            chosen, by_length = by_length[:count], by_length[count:]
            scores = self._batch([pairs[number] for number in chosen]).sigmoid()  # (B,)
            for number, score in zip(chosen, scores.tolist(), strict=True):
                found[number] = score
        return found

    def _batch(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
        """The scores (B,) of pairs, as the head gives them."""
        longest, padding = max(len(ids) for ids, _ in pairs), self.tokenizer.pad_id or 0
        device = next(self.network.parameters()).device

        def padded(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
            filled = [[*row, *[filling] * (longest - len(row))] for row in rows]
            return torch.tensor(filled, device=device)  # (B, T)

        tokens = padded([ids for ids, _ in pairs], padding)
        state = Documents(padded([[1] * len(ids) for ids, _ in pairs], 0))
        if isinstance(self.network, Encoder):
            kinds = self.network.embedding.types
            types = None if kinds is None else padded([kind for _, kind in pairs], 0)
            hidden = self.network(tokens, state=state, types=types)  # (B, T, D)
        else:
            hidden = self.network(tokens, state=state)
        last = torch.tensor([len(ids) - 1 for ids, _ in pairs], device=device)
        scores: Tensor = self.network.heads[pair_head(self.network.config)](hidden, last)  # (B, 1)
        return scores[:, 0]


def pair_head(config: NetworkConfig) -> str:
    """The head that scores texts; an empty name if there is none."""
    heads = getattr(config, "heads", {})
    return next((name for name in ("sequence", "reward") if name in heads), "")


def pair_labels(config: NetworkConfig) -> int:
    """How many labels that head has."""
    head = getattr(config, "heads", {}).get(pair_head(config))
    return (head.labels or 0) if isinstance(head, ClassifierConfig) else 0


def load_cross_encoder(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> CrossEncoder:
    """A cross-encoder by name or folder; arguments and errors are those of `limner.load`."""
    where = choose_device(device)
    report = progress or (lambda stage, done, total: None)
    checkpoint = open_checkpoint(resolve(str(name_or_path), partial(report, "downloading")))
    network = checkpoint.network(choose_dtype(dtype, where), where, partial(report, "loading"))
    assert isinstance(network, Encoder | Decoder)
    return CrossEncoder(str(name_or_path), network, checkpoint.tokenizer())
