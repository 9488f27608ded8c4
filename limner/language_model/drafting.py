"""Who guesses a model's answers ahead, by the word that a user says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from limner.inference.admission import check_speculation
from limner.inference.draft_heads import DraftHeads
from limner.inference.draft_model import DraftModel
from limner.inference.prompt_lookup import PromptLookup
from limner.inference.speculation import TOKEN_COST, Drafter, Speculation
from limner.nn.carried import CarriedShape
from limner.nn.packed import weight_bytes

if TYPE_CHECKING:
    from limner.language_model.model import LanguageModel
    from limner.tokenizers import Tokenizer

#: What one more token adds to a pass on a GPU, where memory is the limit for hundreds of them.
GPU_TOKEN_COST = 0.01


def speculation_for(
    model: LanguageModel, draft: str | Path, load: Callable[[str], LanguageModel]
) -> Speculation:
    """How a model's answers are guessed.

    Args:
        model: the model that answers.
        draft: "lookup" (what followed the last words before), "heads" (the model's own, if it has
            heads that predict further), or the name or path of a smaller model.
        load: loads the smaller one.

    Raises ValueError if the model cannot take back what it has read, has no such heads, or the
    smaller one has other tokens; and what `load` raises.
    """
    network = model.network
    carries = any(isinstance(block.cache_shape, CarriedShape) for block in network.blocks)
    check_speculation(network.config.reusable_prefixes and not carries)
    cost = GPU_TOKEN_COST if network.device.type == "cuda" else TOKEN_COST
    return Speculation(_drafter(model, str(draft), load), token_cost=cost)


def _drafter(model: LanguageModel, draft: str, load: Callable[[str], LanguageModel]) -> Drafter:
    if draft == "lookup":
        return PromptLookup()
    if draft == "heads":
        heads = DraftHeads(cost=1 / len(model.config.blocks))
        heads.prepare(model.network, 0, 0)
        return heads
    smaller = load(draft)
    if words(smaller.tokenizer) != words(model.tokenizer):
        raise ValueError(
            f"'{draft}' has other tokens than '{model.name}': a draft model must have the model's "
            "own, as smaller models of its family do (or say draft=lookup)"
        )
    cost = weight_bytes(smaller.network) / max(weight_bytes(model.network), 1)
    return DraftModel(smaller.network, cost=min(cost, 1.0))


def words(tokenizer: Tokenizer) -> list[str]:
    """All tokens in their order."""
    return [tokenizer.token(number) for number in range(tokenizer.vocabulary_size)]
