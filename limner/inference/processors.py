"""From the model's logits to those a token is drawn from, one rule at a time.

The order is that of transformers and vLLM, so that the same settings mean the same distribution:
allowed tokens, bias and penalties first, since they say what the model should have thought; then
the temperature; then the three cuts (top-k, top-p, min-p), which look at probabilities and so need
the final shape. Each cut sees what the one before it left. (vLLM differs in one place: it cuts by
min-p before top-k and top-p.)

A rule touches only the rows that ask for it, and each row is computed by itself, so a row's logits
are bit-equal whatever its batch-mates ask for.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from limner.inference.constraints import Constraint
from limner.inference.sampling import Sampling

NUCLEUS_GUESS = 512
"""Candidates looked at first by top-p: a whole vocabulary takes 20 times longer to sort."""


class Row(Protocol):
    """What the sampler needs to know of a sequence: a row of logits is to become its next token."""

    @property
    def sampling(self) -> Sampling:
        """The settings of the request."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the request: its own, or one the engine took."""
        ...

    @property
    def sample(self) -> int:
        """Which of several answers to one prompt this is."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """The prompt and what was generated so far."""
        ...

    @property
    def prompt_length(self) -> int:
        """How many of the tokens are the prompt."""
        ...

    @property
    def allowed(self) -> Tensor | None:
        """(V,) bool: the tokens that may come next; None allows all."""
        ...

    @property
    def constraint(self) -> Constraint | None:
        """What form the answer is held to; None is none."""
        ...


class Processor(NamedTuple):
    """A rule: the rows that want it, and what it makes of their logits (R, V)."""

    wanted: Callable[[Row], bool]
    change: Callable[[Tensor, Sequence[Row]], Tensor]


def process(logits: Tensor, rows: Sequence[Row], processors: Sequence[Processor]) -> Tensor:
    """Apply the rules in order; logits (R, V) are not changed in place."""
    for processor in processors:
        chosen = [index for index, row in enumerate(rows) if processor.wanted(row)]
        if len(chosen) == len(rows):
            logits = processor.change(logits, rows)
        elif chosen:
            index = torch.tensor(chosen, device=logits.device)
            changed = processor.change(logits[index], [rows[i] for i in chosen])
            logits = logits.index_copy(0, index, changed)
    return logits


def _column(logits: Tensor, values: Sequence[float]) -> Tensor:
    """One setting for each row, (R, 1)."""
    return torch.tensor(values, dtype=logits.dtype, device=logits.device).unsqueeze(-1)


def _places(logits: Tensor, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Row and token indices of tokens listed for each row."""
    sizes = torch.tensor([len(ids) for ids in tokens], device=logits.device)
    rows = torch.arange(len(tokens), device=logits.device).repeat_interleave(sizes)
    flat = [token for ids in tokens for token in ids]
    return rows, torch.tensor(flat, dtype=torch.long, device=logits.device)


def keep_allowed(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Rule out every token that the row's mask does not allow."""
    allowed = torch.stack([row.allowed for row in rows if row.allowed is not None])
    return logits.masked_fill(~allowed.to(logits.device), -torch.inf)


def keep_to_form(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Rule out every token with which the row's answer would leave its form."""
    masks = [
        row.constraint.allowed(row.tokens[row.prompt_length :])
        for row in rows
        if row.constraint is not None
    ]
    return logits.masked_fill(~torch.stack(masks).to(logits.device), -torch.inf)


def add_bias(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Add each row's own bias to the tokens it names."""
    places = _places(logits, [list(row.sampling.logit_bias) for row in rows])
    values = [value for row in rows for value in row.sampling.logit_bias.values()]
    return logits.index_put(places, torch.tensor(values).to(logits), accumulate=True)


def penalise_repetition(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Make tokens of the prompt and the answer less likely: divide if positive, multiply if not."""
    places = _places(logits, [list(set(row.tokens)) for row in rows])
    penalty = _column(logits, [row.sampling.repetition_penalty for row in rows])[places[0], 0]
    seen = logits[places]
    return logits.index_put(places, torch.where(seen > 0, seen / penalty, seen * penalty))


def penalise_frequency(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Subtract frequency_penalty times the count in the answer, and presence_penalty once."""
    answers = [Counter(row.tokens[row.prompt_length :]) for row in rows]
    places = _places(logits, [list(answer) for answer in answers])
    counts = torch.tensor([count for answer in answers for count in answer.values()]).to(logits)
    frequency = _column(logits, [row.sampling.frequency_penalty for row in rows])[places[0], 0]
    presence = _column(logits, [row.sampling.presence_penalty for row in rows])[places[0], 0]
    changed = logits[places] - frequency * counts - presence
    return logits.index_put(places, changed)


def apply_temperature(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Divide by the temperature, with the maximum moved to 0 so that no temperature overflows."""
    temperature = _column(logits, [row.sampling.temperature for row in rows])
    smallest = torch.finfo(logits.dtype).tiny
    return (logits - logits.amax(-1, keepdim=True)) / temperature.clamp(min=smallest)


def keep_top_k(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Keep exactly the k most probable tokens; among equals, the lowest ids."""
    vocabulary = logits.shape[-1]
    counts = torch.tensor([[min(row.sampling.top_k, vocabulary)] for row in rows])
    size = min(int(counts.max()) + 1, vocabulary)
    return _keep_best(logits, counts.to(logits.device), logits.topk(size, dim=-1).values)


def keep_top_p(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Keep the fewest tokens that hold probability p, the one that crosses it included."""
    best = logits.amax(-1, keepdim=True)
    # a running sum, since a plain one is split between threads when there is a single row
    total = (logits - best).exp().cumsum(-1, dtype=torch.float64)[:, -1:]
    goal = _column(total, [row.sampling.top_p for row in rows]) * total  # (R, 1)
    return _keep_nucleus(logits, best, goal, min(NUCLEUS_GUESS, logits.shape[-1]))


def _keep_nucleus(logits: Tensor, best: Tensor, goal: Tensor, size: int) -> Tensor:
    """Keep the best tokens whose weights reach `goal` (R, 1); sort only `size` of them at first."""
    vocabulary = logits.shape[-1]
    ranked = logits.topk(size, dim=-1).values  # (R, size)
    reached = (ranked - best).exp().cumsum(-1, dtype=torch.float64)
    counts = 1 + (reached < goal).sum(-1, keepdim=True)
    kept = _keep_best(logits, counts.clamp(max=size), ranked)
    wide = (counts >= size).flatten().nonzero().flatten()
    if size < vocabulary and len(wide):
        wider = _keep_nucleus(logits[wide], best[wide], goal[wide], vocabulary)
        kept = kept.index_copy(0, wide, wider)
    return kept


def keep_min_p(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Keep tokens whose probability is at least min_p of the best one's."""
    ratio = _column(logits, [row.sampling.min_p for row in rows]).log()
    return logits.masked_fill(logits - logits.amax(-1, keepdim=True) < ratio, -torch.inf)


def _keep_best(logits: Tensor, counts: Tensor, ranked: Tensor) -> Tensor:
    """Keep `counts` (R, 1) logits; of equals, those with the lowest ids.

    `ranked` (R, n) are the largest logits in order: one more than is kept, or all there are.
    """
    edge = ranked.gather(-1, counts - 1)  # (R, 1), the least that is kept
    beyond = ranked.gather(-1, counts.clamp(max=ranked.shape[-1] - 1))
    if not bool(((beyond == edge) & (counts < ranked.shape[-1])).any()):
        return logits.masked_fill(logits < edge, -torch.inf)
    above, equal = logits > edge, logits == edge
    equal &= equal.cumsum(-1) <= counts - above.sum(-1, keepdim=True)
    return logits.masked_fill(~(above | equal), -torch.inf)


def _penalised(row: Row) -> bool:
    settings = row.sampling
    penalties = settings.frequency_penalty != 0 or settings.presence_penalty != 0
    return penalties and len(row.tokens) > row.prompt_length


PENALTIES = (
    Processor(lambda row: row.allowed is not None, keep_allowed),
    Processor(lambda row: row.constraint is not None, keep_to_form),
    Processor(lambda row: bool(row.sampling.logit_bias), add_bias),
    Processor(lambda row: row.sampling.repetition_penalty != 1, penalise_repetition),
    Processor(_penalised, penalise_frequency),
)
"""Rules that change which token is best; greedy rows need these and no others."""

CUTS = (
    Processor(lambda row: row.sampling.temperature not in (0, 1), apply_temperature),
    Processor(lambda row: row.sampling.top_k > 0, keep_top_k),
    Processor(lambda row: row.sampling.top_p < 1, keep_top_p),
    Processor(lambda row: row.sampling.min_p > 0, keep_min_p),
)
"""Rules of a random draw, for rows whose temperature is not 0."""


def is_plain(row: Row) -> bool:
    """Whether a row draws from its logits as they are, but for the temperature."""
    cut = not row.sampling.greedy and any(cut.wanted(row) for cut in CUTS[1:])
    return not cut and not any(penalty.wanted(row) for penalty in PENALTIES)
