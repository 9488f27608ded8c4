"""The engine: one request or a thousand take this path."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from limner.inference.admission import (
    check_allowed,
    check_prompt,
    check_sampling,
    check_speculation,
    hold_to,
    token_limit,
    with_adapter,
)
from limner.inference.constraints import Constraint
from limner.inference.holdings import Holdings, Rules
from limner.inference.pages import PagePool
from limner.inference.rejection import Guess
from limner.inference.runner import Network, Runner
from limner.inference.sampler import draw, plain_draw
from limner.inference.sampling import DEFAULT, Sampling
from limner.inference.scheduler import Scheduler, Work
from limner.inference.sequence import Event, Sequence
from limner.inference.speculation import Speculation
from limner.inference.stopping import TextDecoder, Transcript
from limner.kernels.library import one_torch_thread
from limner.nn.paged import PAGE_SIZE
from limner.peft import Adapter


class Engine:
    """Answers many requests together, each exactly as if it were alone.

    Args:
        network: the decoder; the engine uses it as it is and keeps no copy.
        rows: sequences computed together; more wait their turn.
        capacity: the longest prompt and answer in tokens; the network's context if not given.
        pages: pages of the cache, which all sequences share; enough for `rows` of `capacity` if not
            given. With fewer, a sequence may be put back to make room and computed again later.
        page_size: tokens a page holds, a multiple of 16.
        prefix_pages: pages kept at most for what they hold when no sequence needs them, so that
            texts that begin alike are computed once; all if not given, 0 for none. They are given
            away when there are no others, so this only limits the memory touched.
        cache_bits: 8 rounds keys and values to a quarter of float32's memory; kept as they are
            computed if not given.
        token_budget: tokens computed in a step at most, so that long prompts do not hold up
            running answers; at least `rows`.
        end_tokens: tokens with which the model ends an answer.
        speculation: who guesses tokens ahead, and how many; nobody does if not given.
        compiled: let torch.compile make fewer operators of a step before it is recorded as a CUDA
            graph, if the GPU can (from capability 7.0, with Triton); a CPU takes no notice. The
            first steps of each size then take up to minutes.

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
        pages: int | None = None,
        page_size: int = PAGE_SIZE,
        prefix_pages: int | None = None,
        cache_bits: int | None = None,
        token_budget: int = 512,
        end_tokens: Iterable[int] = (),
        speculation: Speculation | None = None,
        compiled: bool = False,
    ) -> None:
        capacity = network.config.context if capacity is None else capacity
        _check_sizes(rows, capacity, token_budget, page_size, prefix_pages)
        self.network, self.capacity = network, capacity
        self.end_tokens = frozenset(end_tokens)
        limits = network.config
        rules = Rules(token_budget, limits.window, limits.rereads_at, limits.reusable_prefixes)
        pages = _check_pages(pages, rows, capacity, page_size, rules)
        cache = network.new_paged_cache(rows, capacity, pages, page_size, cache_bits)
        holdings = Holdings(cache, PagePool(pages, prefix_pages), rules)
        self.scheduler = Scheduler(holdings, rows, token_budget)
        self.speculation = speculation
        if speculation is not None:
            check_speculation(cache.can_rewind and limits.reusable_prefixes)
            speculation.drafter.prepare(network, rows, capacity)
        drafter = None if speculation is None else speculation.drafter
        watch = drafter.watch if drafter and drafter.watches else None
        self.runner = Runner(network, cache, watch, compiled)
        self._ids = itertools.count()

    @property
    def busy(self) -> bool:
        """Whether a step would do or report something."""
        return self.scheduler.busy

    @property
    def statistics(self) -> Statistics:
        """How full the cache is, and what became of the texts so far."""
        holdings = self.scheduler.holdings
        running = len(self.scheduler.running)
        return Statistics(
            pages=holdings.pool.pages,
            used=holdings.pool.used,
            cached=holdings.pool.cached,
            running=running,
            waiting=len(self.scheduler.sequences) - running,
            asked=holdings.asked,
            found=holdings.found,
            preemptions=self.scheduler.preemptions,
            proposed=self.scheduler.proposed,
            accepted=self.scheduler.accepted,
        )

    def submit(
        self,
        tokens: Iterable[int],
        sampling: Sampling = DEFAULT,
        *,
        sample: int = 0,
        decoder: TextDecoder | None = None,
        allowed: Tensor | None = None,
        constraint: Constraint | None = None,
        beside: Sequence | None = None,
        conditions: tuple[object, ...] = (),
        speculate: bool = True,
        adapter: Adapter | None = None,
    ) -> Sequence:
        """Queue a request; the steps to come answer it.

        Args:
            tokens: the prompt.
            sampling: how to choose tokens, and when to stop.
            sample: tells apart several answers to one prompt under one seed.
            decoder: turns this answer's tokens into text; stop strings need one.
            allowed: (V,) bool, the tokens that may be generated; all if not given.
            constraint: follows this answer through the form that it is held to.
            beside: an answer submitted before to the same prompt, which is computed once for both.
            conditions: what the prompt's keys depend on beside its tokens; only texts of equal ones
                share what is computed of their beginnings.
            speculate: whether its tokens may be guessed ahead, where the engine does that.
            adapter: changes the network for this answer alone, whoever is computed beside it; it
                must be packed (`limner.peft.Adapter.pack`). Guesses are made without it.

        Raises:
            ValueError: the prompt is empty, holds a token outside the vocabulary, or does not fit
                with the answer asked for; or a setting makes no sense for this network.
        """
        limits = self.network.config
        prompt = check_prompt(tokens, limits.vocabulary)
        check_sampling(sampling, limits.vocabulary, decoder is not None)
        check_allowed(allowed, limits.vocabulary)
        end_tokens = self._ends(sampling)
        hold_to(constraint, end_tokens)
        conditions = with_adapter(conditions, adapter)
        sequence = Sequence(
            id=next(self._ids),
            tokens=prompt,
            prompt_length=len(prompt),
            limit=token_limit(prompt, sampling, limits.context, self.capacity),
            sampling=sampling,
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            sample=sample,
            end_tokens=end_tokens,
            transcript=Transcript(decoder, sampling.stop),
            allowed=allowed,
            constraint=constraint,
            conditions=conditions,
            adapter=adapter,
            leader=_leader(prompt, conditions, beside),
            speculates=speculate,
        )
        self.scheduler.add(sequence)
        return sequence

    def _ends(self, sampling: Sampling) -> frozenset[int]:
        """The tokens that end an answer."""
        model_end = frozenset[int]() if sampling.ignore_eos else self.end_tokens
        return model_end.union(sampling.stop_tokens)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Compute up to `token_budget` tokens; return what happened to which sequence."""
        with one_torch_thread() if self.runner.on_kernels else nullcontext():
            return self._step()

    def _step(self) -> list[Event]:
        work = self.scheduler.plan()
        if self.speculation is not None:
            work = self.scheduler.lengthen(work, self.speculation.guess)
        rows = list(itertools.chain.from_iterable(item.drawing for item in work))
        shared = any(item.followers for item in work)  # some draw from the same logits
        plain = None if shared else partial(plain_draw, rows)
        logits, drawn = self.runner.run(work, plain)  # (R, V), (R,)
        if shared:
            each = torch.tensor(_uses(work), device=logits.device)
            logits = logits.repeat_interleave(each, 0)
        return self.scheduler.commit(work, draw(logits, rows, _judged(work), drawn))

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence now and free its pages; the next step reports it.

        One that is finished stays as it is.
        """
        if not sequence.finished:
            self.scheduler.cancel(sequence)

    def generate(
        self,
        prompts: Iterable[Iterable[int]],
        sampling: Sampling = DEFAULT,
        *,
        new_decoder: Callable[[], TextDecoder] | None = None,
        new_constraint: Callable[[], Constraint | None] = lambda: None,
        adapter: Adapter | None = None,
    ) -> list[Sequence]:
        """Answer all prompts, and return their sequences in the same order.

        Raises ValueError as `submit` does, before anything is computed.
        """
        answers: list[Sequence] = []
        try:
            for prompt in prompts:
                decoder = new_decoder() if new_decoder else None
                held = new_constraint()
                answers.append(
                    self.submit(prompt, sampling, decoder=decoder, constraint=held, adapter=adapter)
                )
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


@dataclass(frozen=True, slots=True)
class Statistics:
    """How full the cache is, and what became of the texts so far."""

    pages: int
    """Pages there are."""
    used: int
    """Pages that running sequences hold."""
    cached: int
    """Pages nobody holds whose contents are known; the rest are free."""
    running: int
    """Sequences that have a row."""
    waiting: int
    """Sequences that have none yet, or no longer."""
    asked: int
    """Tokens of all texts that were given a row, each time they were."""
    found: int
    """How many of them were computed before, by another text that began alike."""
    preemptions: int
    """How often a sequence was put back to make room for an earlier one."""
    proposed: int
    """Tokens that were guessed ahead."""
    accepted: int
    """How many of them were right."""


def _uses(work: Iterable[Work]) -> list[int]:
    """How many draw from each row of logits."""
    each = []
    for item in work:
        if item.draws:
            each += [1] * len(item.guesses) + [1 + len(item.followers)]
    return each


def _judged(work: Iterable[Work]) -> dict[int, Guess]:
    """Guesses that were drawn from known probabilities, by the row that is to draw the token."""
    drawn: list[Guess | None] = []
    for item in work:
        drawn += [*item.guesses, *[None] * (item.drawn - len(item.guesses))]
    return {n: guess for n, guess in enumerate(drawn) if guess and guess.probabilities is not None}


def _leader(
    prompt: list[int], conditions: tuple[object, ...], beside: Sequence | None
) -> Sequence | None:
    """The sequence that computes a prompt for another; None if that is done already."""
    if beside is None:
        return None
    if beside.tokens[: beside.prompt_length] != prompt or beside.conditions != conditions:
        raise ValueError(
            f"sequence {beside.id} has another prompt or other conditions: only answers to the "
            "same prompt can be computed beside each other"
        )
    leader = beside.leader or beside
    return None if leader.finished or leader.generated else leader


def _check_pages(pages: int | None, rows: int, capacity: int, size: int, rules: Rules) -> int:
    """The pages given, or enough for all rows."""
    needed = rules.most_pages(capacity, size)
    if pages is not None and pages < needed:
        raise ValueError(
            f"{pages} pages of {size} tokens cannot hold a text of {capacity}: give at least "
            f"{needed} pages, or a smaller capacity"
        )
    return rows * needed if pages is None else pages


def _check_sizes(
    rows: int, capacity: int, token_budget: int, page_size: int, prefix_pages: int | None
) -> None:
    if rows < 1:
        raise ValueError(f"rows must be 1 or more, not {rows}")
    if page_size < 1:
        raise ValueError(f"page_size must be 1 token or more, not {page_size}")
    if prefix_pages is not None and prefix_pages < 0:
        raise ValueError(f"prefix_pages must be 0 or more, not {prefix_pages}")
    if capacity < 2:
        raise ValueError(f"capacity must be 2 tokens or more, not {capacity}")
    if token_budget < rows:
        raise ValueError(
            f"a token_budget of {token_budget} is less than the {rows} rows, "
            "each of which may need a token in every step: raise it or use fewer rows"
        )
