"""Texts in, and vectors in the shape of OpenAI's embeddings.

D width, P width of the vectors, C tokens computed at once.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from limner.language_model import Embedder
from limner.models.decoder import Decoder
from limner.nn.cache import DenseCache
from limner.serving.requests import EmbeddingRequest

#: Tokens of a decoder's texts that are computed at once: running answers wait for them.
CHUNK = 256


def tokens_of(embedder: Embedder, name: str, body: EmbeddingRequest) -> list[list[int]]:
    """The token ids of a request's texts. Raises ValueError for what does not fit."""
    width = embedder.network.width
    if body.dimensions is not None and body.dimensions > width:
        raise ValueError(f"dimensions is {body.dimensions}, but '{name}' has {width}")
    most = body.truncate_prompt_tokens
    return [encoded(embedder, name, *one, most) for one in enumerate(body.input, 1)]


def mean_vectors(network: Decoder, texts: Sequence[Sequence[int]]) -> Generator[None, None, Tensor]:
    """The mean of the last hidden vectors of each text: (number of texts, D).

    A generator, so that others can be served between the pieces; it returns the vectors.
    """
    vectors = []
    for tokens in texts:
        cache = network.new_cache(rows=1, capacity=len(tokens))
        total = torch.zeros(network.config.width, device=network.device)  # (D,)
        for start in range(0, len(tokens), CHUNK):
            total += _sum_of(network, cache, tokens[start : start + CHUNK], start)
            yield
        vectors.append(total / len(tokens))
    return torch.stack(vectors)


@torch.inference_mode()
def _sum_of(network: Decoder, cache: DenseCache, tokens: Sequence[int], start: int) -> Tensor:
    """The sum (D,) of the hidden vectors of `tokens` (C,), the first of which stands at `start`."""
    ids = torch.tensor([list(tokens)], device=network.device)  # (1, C)
    positions = torch.arange(start, start + len(tokens), device=network.device)[None]  # (1, C)
    hidden = network(ids, positions, cache.step([(0, len(tokens))]))  # (1, C, D)
    return hidden[0].float().sum(0)


def cut(embedder: Embedder, vectors: Tensor, dimensions: int | None) -> Tensor:
    """The first numbers of vectors (number of texts, P), at length one if the whole ones are.

    That loses little only with models trained so (Kusupati et al. 2022).
    """
    if dimensions is None or dimensions == embedder.network.width:
        return vectors
    shorter = vectors[:, :dimensions]
    return functional.normalize(shorter, dim=-1) if embedder.network.normalizes else shorter


def response(name: str, body: EmbeddingRequest, vectors: Tensor, count: int) -> dict[str, Any]:
    """The reply with vectors (number of texts, P) of texts that have `count` tokens in all."""
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector, packed)}
        for index, vector in enumerate(vectors.float().cpu().numpy())
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def written(vector: NDArray[np.float32], packed: bool) -> list[float] | str:
    """A vector (P,) as numbers, or as base64 of little-endian float32."""
    if packed:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def encoded(
    embedder: Embedder, name: str, number: int, given: str | list[int], most: int | None
) -> list[int]:
    """The token ids of one input, the network's to take, shortened to `most` if that is given."""
    ids = embedder.tokenizer.encode(given) if isinstance(given, str) else given
    ids = ids if most is None else embedder.shortened(ids, most)
    if not 0 < len(ids) <= embedder.longest:
        raise ValueError(
            f"input {number} has {len(ids)} tokens, but '{name}' takes from 1 to {embedder.longest}"
        )
    if not all(0 <= token < embedder.tokenizer.vocabulary_size for token in ids):
        raise ValueError(f"input {number} holds what is no token of '{name}'")
    return ids
