"""Texts in, and vectors in the shape of OpenAI's embeddings.

P width of the vectors.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.language_model import Embedder
from limner.serving.requests import EmbeddingRequest


def response(embedder: Embedder, name: str, body: EmbeddingRequest) -> dict[str, Any]:
    """The vectors of a request's texts. Raises ValueError for a text that does not fit."""
    width = embedder.network.width
    if body.dimensions is not None and body.dimensions != width:
        raise ValueError(f"dimensions is {body.dimensions}, but '{name}' has {width}")
    tokens = [_checked(embedder, name, number, given) for number, given in enumerate(body.input, 1)]
    vectors = embedder.embed_tokens(tokens).float().cpu().numpy()  # (texts, P)
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector, packed)}
        for index, vector in enumerate(vectors)
    ]
    count = sum(map(len, tokens))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def written(vector: NDArray[np.float32], packed: bool) -> list[float] | str:
    """A vector (P,) as numbers, or as base64 of little-endian float32."""
    if packed:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def _checked(embedder: Embedder, name: str, number: int, given: str | list[int]) -> list[int]:
    """The token ids of one input, the network's to take."""
    ids = embedder.tokenizer.encode(given) if isinstance(given, str) else given
    if not 0 < len(ids) <= embedder.longest:
        raise ValueError(
            f"input {number} has {len(ids)} tokens, but '{name}' takes from 1 to {embedder.longest}"
        )
    if not all(0 <= token < embedder.tokenizer.vocabulary_size for token in ids):
        raise ValueError(f"input {number} holds what is no token of '{name}'")
    return ids
