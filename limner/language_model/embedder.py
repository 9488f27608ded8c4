"""Text in, vectors out.

P width of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.sentence import open_sentence_encoder
from limner.language_model.loading import Progress, choose_device, choose_dtype
from limner.models.sentence import SentenceEncoder
from limner.tokenizers import Tokenizer

#: Tokens, padding counted, that are computed at once.
BATCH_TOKENS = 8192


class Embedder:
    """A sentence encoder with its tokenizer.

    Args:
        name: what it is called.
        network: the encoder.
        tokenizer: its tokenizer.
        longest: the longest text in tokens, those that the tokenizer adds counted.
    """

    def __init__(
        self, name: str, network: SentenceEncoder, tokenizer: Tokenizer, longest: int
    ) -> None:
        self.name, self.network, self.tokenizer, self.longest = name, network, tokenizer, longest

    def __repr__(self) -> str:
        return f"Embedder('{self.name}', {self.network.width} numbers a text)"

    def embed(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """The vectors (number of texts, P) of texts, or the vector (P,) of one.

        A vector does not depend on the other texts. With `truncate` the end of a text that is too
        long is left out; ValueError otherwise.
        """
        if isinstance(texts, str):
            return self.embed([texts], truncate=truncate)[0]
        tokens = [
            self._fit(number, ids, truncate)
            for number, ids in enumerate(self.tokenizer.encode_batch(texts))
        ]
        return self.embed_tokens(tokens)

    @torch.inference_mode()
    def embed_tokens(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The vectors (number of texts, P) of texts given as token ids."""
        weight = next(self.network.parameters())
        vectors = weight.new_empty(len(tokens), self.network.width)
        by_length = sorted(range(len(tokens)), key=lambda number: -len(tokens[number]))
        while by_length:
            # The longest first: should memory not suffice, that shows at once.
            count = max(1, BATCH_TOKENS // max(1, len(tokens[by_length[0]])))
            chosen, by_length = by_length[:count], by_length[count:]
            ids, mask = self._pad([tokens[number] for number in chosen], weight.device)
            vectors[chosen] = self.network(ids, mask)
        return vectors

    def similarity(self, first: str | Sequence[str], second: str | Sequence[str]) -> Tensor:
        """Cosines of each of the `first` texts with each of the `second`, one row or more."""
        return self.cosines(self.embed(first), self.embed(second))

    @staticmethod
    def cosines(first: Tensor, second: Tensor) -> Tensor:
        """Cosines of each of the vectors `first` with each of `second`."""
        one, other = (
            functional.normalize(torch.atleast_2d(vectors), dim=-1) for vectors in (first, second)
        )
        return one @ other.T

    def _fit(self, number: int, ids: list[int], truncate: bool) -> list[int]:
        if len(ids) <= self.longest:
            return ids
        if not truncate:
            raise ValueError(
                f"text {number + 1} has {len(ids)} tokens but '{self.name}' takes {self.longest}: "
                "shorten it, or allow truncation"
            )
        return self.shortened(ids, self.longest)

    def shortened(self, ids: list[int], most: int) -> list[int]:
        """The token ids of a text without its end, so that they are at most `most`."""
        if len(ids) <= most:
            return ids
        whole = self.tokenizer.encode("")
        last = whole[-1:] if ids[-1:] == whole[-1:] else []  # the token that ends every text
        return ids[: max(most - len(last), 0)] + last[:most]

    def _pad(self, texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Token ids and mask, both (B, T), with padding behind the shorter texts."""
        longest, padding = max(map(len, texts)), self.tokenizer.pad_id or 0
        rows = [[*ids, *[padding] * (longest - len(ids))] for ids in texts]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)


def load_embedder(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Embedder:
    """An embedder by name or folder; arguments and errors are those of `limner.load`.

    Without a modules.json that says otherwise, a text's vector is the mean of its tokens' vectors.
    """
    where = choose_device(device)
    numbers = choose_dtype(dtype, where)
    report = progress or (lambda stage, done, total: None)
    checkpoint = open_sentence_encoder(resolve(str(name_or_path), partial(report, "downloading")))
    network = checkpoint.network(numbers, where, partial(report, "loading"))
    return Embedder(str(name_or_path), network, checkpoint.tokenizer(), checkpoint.longest)
