"""What the engine accepts: every request is checked whole, before anything is computed."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from limner.inference.constraints import Constraint
from limner.inference.sampling import Sampling
from limner.peft import Adapter


def check_prompt(tokens: Iterable[int], vocabulary: int) -> list[int]:
    """The prompt as a list of token ids.

    Raises ValueError if it is empty or a token is not in the vocabulary.
    """
    prompt = [operator.index(token) for token in tokens]
    if not prompt:
        raise ValueError(
            "the prompt has no tokens, and a model needs at least one to go on from: "
            "start with its beginning-of-text token"
        )
    _check_tokens("the prompt", prompt, vocabulary)
    return prompt


def check_sampling(sampling: Sampling, vocabulary: int, has_decoder: bool) -> None:
    """Raise ValueError for what a network of this vocabulary cannot do."""
    _check_tokens("logit_bias", sampling.logit_bias, vocabulary)
    _check_tokens("stop_tokens", sampling.stop_tokens, vocabulary)
    if sampling.stop and not has_decoder:
        raise ValueError(
            f"stop strings such as {sampling.stop[0]!r} need text: give the request a decoder, "
            "or use stop_tokens"
        )


def check_allowed(allowed: Tensor | None, vocabulary: int) -> None:
    """Raise ValueError unless `allowed` has a yes or no for every token."""
    if allowed is None or (allowed.dtype == torch.bool and allowed.shape == (vocabulary,)):
        return
    raise ValueError(
        f"allowed must be a bool tensor of shape ({vocabulary},), one for each token, "
        f"not {allowed.dtype} of shape {tuple(allowed.shape)}"
    )


def check_constraint(constraint: Constraint | None, end_tokens: Collection[int]) -> None:
    """Raise ValueError if an answer that is held to a form could not end."""
    if constraint is not None and not end_tokens:
        raise ValueError(
            "an answer that is held to a form must be able to end: leave ignore_eos out, or give "
            "stop_tokens for a model without an end token"
        )


def hold_to(constraint: Constraint | None, end_tokens: frozenset[int]) -> None:
    """Tell a form which tokens may end its answer; raises ValueError as `check_constraint`."""
    check_constraint(constraint, end_tokens)
    if constraint is not None:
        constraint.ends = end_tokens


def with_adapter(conditions: tuple[object, ...], adapter: Adapter | None) -> tuple[object, ...]:
    """What a text's keys depend on, its adapter included.

    Raises ValueError for an adapter that is not prepared for answering.
    """
    if adapter is None:
        return conditions
    if not adapter.packed:
        raise ValueError("the adapter is not prepared for answering: call its pack() first")
    return (*conditions, ("adapter", adapter.number))


def check_speculation(possible: bool) -> None:
    """Raise ValueError if a network's answers cannot be guessed ahead."""
    if not possible:
        raise ValueError(
            "this model's answers cannot be guessed ahead, since what it keeps of a text cannot be "
            "taken back (it is recurrent, or its positions stretch): leave speculation out"
        )


def token_limit(prompt: Sequence[int], sampling: Sampling, context: int, capacity: int) -> int:
    """The number of tokens, prompt included, at which an answer is cut off.

    Raises ValueError, naming both numbers, if the prompt leaves no room for an answer or less than
    was asked for: nothing is cut silently.
    """
    room, name = (context, "context") if context <= capacity else (capacity, "engine's capacity")
    if len(prompt) >= room:
        raise ValueError(
            f"the prompt has {len(prompt)} tokens but the {name} is {room}, "
            "an answer of at least one token included: shorten the prompt"
        )
    if sampling.max_tokens is None:
        return room
    limit = len(prompt) + sampling.max_tokens
    if limit > room:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and max_tokens of {sampling.max_tokens} make "
            f"{limit}, but the {name} is {room}: ask for at most {room - len(prompt)}"
        )
    return limit


def _check_tokens(name: str, tokens: Iterable[int], vocabulary: int) -> None:
    for token in tokens:
        if not 0 <= token < vocabulary:
            raise ValueError(
                f"{name} holds token {token}, but the vocabulary has {vocabulary} tokens "
                f"(0 to {vocabulary - 1})"
            )
