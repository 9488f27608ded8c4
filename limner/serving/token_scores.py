"""Tokens and their log-probabilities as clients read them, and those of a prompt.

T tokens of the prompt, C of them at once, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limner.language_model.completion import token_text
from limner.models.decoder import Decoder
from limner.nn.cache import DenseCache
from limner.tokenizers import IncrementalDecoder, Tokenizer

#: Positions computed at once: running answers wait for them, and the logits of a whole prompt can
#: take more memory than a model.
CHUNK = 128

#: JSON has no infinity; OpenAI's documents give this for what cannot come.
IMPOSSIBLE = -9999.0


class Score(NamedTuple):
    """A token, its log-probability (None: nothing stands before it) and the best in its place."""

    token: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...] = ()


def score_prompt(
    network: Decoder, tokens: Sequence[int], count: int
) -> Generator[None, None, list[Score]]:
    """Compute the score of each token of a prompt, with the `count` best in its place, in pieces.

    What a trainer computes: log-softmax of the logits that the tokens before give. A generator, so
    that others can be served between the pieces; it returns the scores.
    """
    cache = network.new_cache(rows=1, capacity=len(tokens))
    scores = [Score(tokens[0], None)]
    for start in range(0, len(tokens) - 1, CHUNK):
        end = min(start + CHUNK, len(tokens) - 1)
        scores += _piece(network, cache, tokens[start : end + 1], start, count)
        yield
    return scores


@torch.inference_mode()
def _piece(
    network: Decoder, cache: DenseCache, tokens: Sequence[int], start: int, count: int
) -> list[Score]:
    """Scores of all `tokens` (C+1,) but the first, which stand at `start` and behind."""
    device = network.device
    ids = torch.tensor([list(tokens)], device=device)  # (1, C+1)
    positions = torch.arange(start, start + len(tokens) - 1, device=device)[None]  # (1, C)
    state = cache.step([(0, len(tokens) - 1)])
    logits = network.head(network(ids[:, :-1], positions, state))[0]  # (C, V)
    logprobs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
    return _score(logprobs, ids[0, 1:], count)


def _score(logprobs: Tensor, tokens: Tensor, count: int) -> list[Score]:
    """Scores of tokens (C,) under log-probabilities (C, V)."""
    own = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).tolist()
    best = logprobs.topk(min(count, logprobs.shape[-1]))
    rows = zip(tokens.tolist(), own, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Score(token, logprob, tuple(zip(indices, values, strict=True)))
        for token, logprob, indices, values in rows
    ]


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, IMPOSSIBLE)


def chat_score(tokenizer: Tokenizer, score: Score) -> dict[str, Any]:
    """A token of a chat's answer in `logprobs.content`."""
    assert score.logprob is not None
    return _entry(tokenizer, score.token, score.logprob) | {
        "top_logprobs": [_entry(tokenizer, *pair) for pair in score.alternatives]
    }


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    text = token_text(tokenizer, token)
    special = token >= tokenizer.vocabulary_size or token in tokenizer.special_ids
    own = text.encode() if special else tokenizer.token_bytes(token)
    return {"token": text, "logprob": finite(logprob), "bytes": list(own)}


@dataclass
class CompletionScores:
    """The `logprobs` of a completion, in pieces; offsets count characters of the text returned."""

    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        self._decoder = IncrementalDecoder(self.tokenizer)
        self._offset = 0

    def piece(self, scores: Sequence[Score]) -> dict[str, Any]:
        """What further tokens add."""
        return {
            "tokens": [token_text(self.tokenizer, score.token) for score in scores],
            "token_logprobs": [
                None if score.logprob is None else finite(score.logprob) for score in scores
            ],
            "top_logprobs": [self._best(score) for score in scores],
            "text_offset": [self._place(score.token) for score in scores],
        }

    def _best(self, score: Score) -> dict[str, float] | None:
        """By text, best first; of tokens that look alike the more probable one, and the chosen."""
        if score.logprob is None:
            return None
        pairs = [*score.alternatives, (score.token, score.logprob)]
        best: dict[str, float] = {}
        for token, logprob in pairs:
            best.setdefault(token_text(self.tokenizer, token), finite(logprob))
        return best

    def _place(self, token: int) -> int:
        place = self._offset
        self._offset += len(self._decoder.push(token))
        return place
