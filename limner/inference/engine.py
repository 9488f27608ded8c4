"""The engine: one request or a thousand take this path."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from limner.inference.admission import check_allowed, check_prompt, check_sampling, token_limit
from limner.inference.runner import Network, Runner
from limner.inference.sampler import draw
from limner.inference.sampling import DEFAULT, Sampling
from limner.inference.scheduler import Scheduler
from limner.inference.sequence import Event, Sequence
from limner.inference.stopping import TextDecoder, Transcript


class Engine:
    """Answers many requests together, each exactly as if it were alone.

    Args:
        network: the decoder; the engine uses it as it is and keeps no copy.
        rows: sequences computed together; more wait their turn.
        capacity: tokens that fit in a row, prompt and answer; the network's context if not given.
        token_budget: tokens computed in a step at most, so that long prompts do not hold up
            running answers; at least `rows`.
        end_tokens: tokens with which the model ends an answer.

    Everything happens inside `step`, on the caller's thread; an engine is not to be shared between
    threads. If a step is interrupted (Ctrl-C), the next one takes up where it left off.

    Raises ValueError for sizes that cannot work.
    """

    def __init__(
        self,
        network: Network,
        *,
        rows: int = 16,
        capacity: int | None = None,
        token_budget: int = 512,
        end_tokens: Iterable[int] = (),
    ) -> None:
        capacity = network.config.context if capacity is None else capacity
        _check_sizes(rows, capacity, token_budget)
        self.network, self.capacity = network, capacity
        self.end_tokens = frozenset(end_tokens)
        cache = network.new_cache(rows=rows, capacity=capacity)
        self.scheduler = Scheduler(cache, rows, token_budget)
        self.runner = Runner(network, cache)
        self._ids = itertools.count()

    @property
    def busy(self) -> bool:
        """Whether a step would do or report something."""
        return self.scheduler.busy

    def submit(
        self,
        tokens: Iterable[int],
        sampling: Sampling = DEFAULT,
        *,
        sample: int = 0,
        decoder: TextDecoder | None = None,
        allowed: Tensor | None = None,
    ) -> Sequence:
        """Queue a request; the steps to come answer it.

        Args:
            tokens: the prompt.
            sampling: how to choose tokens, and when to stop.
            sample: tells apart several answers to one prompt under one seed.
            decoder: turns this answer's tokens into text; stop strings need one.
            allowed: (V,) bool, the tokens that may be generated; all if not given.

        Raises:
            ValueError: the prompt is empty, holds a token outside the vocabulary, or does not fit
                with the answer asked for; or a setting makes no sense for this network.
        """
        limits = self.network.config
        prompt = check_prompt(tokens, limits.vocabulary)
        check_sampling(sampling, limits.vocabulary, decoder is not None)
        check_allowed(allowed, limits.vocabulary)
        model_end = frozenset[int]() if sampling.ignore_eos else self.end_tokens
        sequence = Sequence(
            id=next(self._ids),
            tokens=prompt,
            prompt_length=len(prompt),
            limit=token_limit(prompt, sampling, limits.context, self.capacity),
            sampling=sampling,
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            sample=sample,
            end_tokens=model_end.union(sampling.stop_tokens),
            transcript=Transcript(decoder, sampling.stop),
            allowed=allowed,
        )
        self.scheduler.add(sequence)
        return sequence

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Compute up to `token_budget` tokens; return what happened to which sequence."""
        work = self.scheduler.plan()
        logits = self.runner.run(work)  # (R, V)
        draws = draw(logits, [item.sequence for item in work if item.draws])
        return self.scheduler.commit(work, draws)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence now and free its row; the next step reports it. Finished ones stay so."""
        if not sequence.finished:
            self.scheduler.cancel(sequence)

    def generate(
        self,
        prompts: Iterable[Iterable[int]],
        sampling: Sampling = DEFAULT,
        *,
        new_decoder: Callable[[], TextDecoder] | None = None,
    ) -> list[Sequence]:
        """Answer all prompts, and return their sequences in the same order.

        Raises ValueError as `submit` does, before anything is computed.
        """
        answers: list[Sequence] = []
        try:
            for prompt in prompts:
                decoder = new_decoder() if new_decoder else None
                answers.append(self.submit(prompt, sampling, decoder=decoder))
            while not all(answer.finished for answer in answers):
                self.step()
        finally:
            for answer in answers:
                self.cancel(answer)
        return answers

    def stream(
        self,
        tokens: Iterable[int],
        sampling: Sampling = DEFAULT,
        *,
        decoder: TextDecoder | None = None,
    ) -> Iterator[Event]:
        """Submit a request and follow it. Raises ValueError at once, as `submit` does."""
        return self.follow(self.submit(tokens, sampling, decoder=decoder))

    def follow(self, sequence: Sequence) -> Iterator[Event]:
        """The events of one sequence from its first, stepping the engine for those to come.

        Other sequences move on meanwhile. Closing the iterator cancels the sequence.
        """
        try:
            for index in itertools.count():
                while index >= len(sequence.events):
                    self.step()
                yield sequence.events[index]
                if sequence.events[index].finish_reason:
                    return
        finally:
            self.cancel(sequence)


def _check_sizes(rows: int, capacity: int, token_budget: int) -> None:
    if rows < 1:
        raise ValueError(f"rows must be 1 or more, not {rows}")
    if capacity < 2:
        raise ValueError(f"capacity must be 2 tokens or more, not {capacity}")
    if token_budget < rows:
        raise ValueError(
            f"a token_budget of {token_budget} is less than the {rows} rows, "
            "each of which may need a token in every step: raise it or use fewer rows"
        )
