"""Whatever else happens in the engine, each sequence gets what it would get alone."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.inference import holdings, pages, scheduler
from limner.inference.draft_model import DraftModel
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.inference.speculation import Speculation
from tests.inference.fake import FakeAdapter, FakeNetwork, Letters
from tests.inference.guessing import Guesser
from tests.inference.naive import naive_answer

END, POISON, VOCABULARY, CONTEXT, PAGE = 5, 11, 12, 40, 4
ADAPTERS = [FakeAdapter(number) for number in (1, 2, 3)]
BEGINNINGS = [[1, 2, 3, 4, 6, 7, 8, 9] * 2, [1, 2, 3, 4, 6, 7, 8, 0], [3] * 12]
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recurrent": {"can_rewind": False},
    "sliding": {"window": 7},
    "reread": {"rereads_at": 14},
    "stretching": {"reusable_prefixes": False},
}

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0, 0.6, 1, 2]),
    top_k=st.sampled_from([0, 0, 3]),
    top_p=st.sampled_from([1, 1, 0.8]),
    min_p=st.sampled_from([0, 0, 0.1]),
    repetition_penalty=st.sampled_from([1, 1, 1.3]),
    frequency_penalty=st.sampled_from([0, 0, 0.5]),
    presence_penalty=st.sampled_from([0, 0, -0.5]),
    logit_bias=st.sampled_from([{}, {}, {3: 2.0, END: -math.inf}]),
    seed=st.integers(0, 3),
    max_tokens=st.none() | st.integers(1, 12),
    stop=st.sampled_from([(), (), ("ca", "b \n"), ("aa",), ("?",)]),
    stop_tokens=st.sampled_from([(), (), (8, 9)]),
    ignore_eos=st.booleans(),
    logprobs=st.sampled_from([None, 0, 2]),
    logprobs_of=st.sampled_from(["model", "processed"]),
)
masks = st.none() | st.lists(st.booleans(), min_size=VOCABULARY, max_size=VOCABULARY).map(
    torch.tensor
)
prompts = st.lists(st.integers(0, VOCABULARY - 2), min_size=1, max_size=CONTEXT // 2) | st.builds(
    lambda beginning, end: beginning + end,
    st.sampled_from(BEGINNINGS),
    st.lists(st.integers(0, VOCABULARY - 2), max_size=4),
)
requests = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "sampling": samplings,
        "samples": st.sampled_from([1, 1, 1, 2, 3]),
        "allowed": masks,
        "conditions": st.sampled_from([(), (), ("image",)]),
        "adapter": st.none() | st.sampled_from(ADAPTERS),
        "arrives": st.integers(0, 20),
        "leaves": st.none() | st.none() | st.integers(0, 30),
        "put_back": st.sets(st.integers(0, 20), max_size=2),
    }
)
#: When a step is interrupted: before or after the forward pass has filled the cache, or at some
#: line of what plans and counts.
interrupts = st.dictionaries(
    st.integers(0, 30),
    st.tuples(st.just("forward"), st.integers(0, 1))
    | st.tuples(st.just("line"), st.integers(0, 300)),
    max_size=4,
)
engines = st.fixed_dictionaries(
    {
        "network": st.sampled_from(sorted(NETWORKS)),
        "rows": st.integers(1, 4),
        "spare_tokens": st.integers(0, 12),
        "spare_pages": st.sampled_from([0, 1, 3, 10, 30]),
        "prefix_pages": st.sampled_from([None, None, 0, 3]),
        # who guesses ahead: nobody, a model, or one who is wrong at every n-th token (0: never)
        "guesses": st.sampled_from([None, "model", 0, 1, 3]),
    }
)


class Traffic:
    """Requests that come, go, are put back and are interrupted, step by step."""

    def __init__(self, options, requests, interrupts):
        self.network = FakeNetwork(VOCABULARY, CONTEXT, POISON, **NETWORKS[options["network"]])
        self.budget = options["rows"] + options["spare_tokens"]
        window = self.network.config.window
        least = -(-CONTEXT // PAGE)
        self.ample = least + options["spare_pages"] >= options["rows"] * least
        if window:
            least = min(least, -(-(window + self.budget) // PAGE) + 1)
        self.engine = Engine(
            self.network,
            rows=options["rows"],
            pages=least + options["spare_pages"],
            page_size=PAGE,
            prefix_pages=options["prefix_pages"],
            token_budget=self.budget,
            end_tokens=[END],
            speculation=self.speculation(options["guesses"]),
        )
        self.requests, self.interrupts = requests, interrupts
        self.sequences: list[list[Any]] = [[] for _ in requests]
        self.time = 0

    def speculation(self, guesses):
        able = self.network.can_rewind and self.network.config.reusable_prefixes
        if guesses is None or not able:
            return None
        smaller = DraftModel(FakeNetwork(VOCABULARY, CONTEXT - 5), cost=0)
        drafter = smaller if guesses == "model" else Guesser(self.network, guesses)
        return Speculation(drafter, longest=5, token_cost=0)

    def run(self):
        last = max((request["arrives"] for request in self.requests), default=0)
        answers = sum(request["samples"] for request in self.requests)
        most = 1 + last + len(self.interrupts) + 3 * CONTEXT * answers
        while self.time <= last or self.engine.busy:
            self.change()
            self.step()
            self.time += 1
            assert self.time <= most, "some sequence never moves"
        assert self.engine.step() == []

    def change(self):
        for index, request in enumerate(self.requests):
            if request["arrives"] == self.time:
                self.submit(request, self.sequences[index])
            for sequence in self.sequences[index]:
                if request["leaves"] == self.time:
                    self.engine.cancel(sequence)
                if self.time in request["put_back"] and sequence.row is not None:
                    self.engine.scheduler.preempt(sequence)

    def submit(self, request, answers):
        for sample in range(request["samples"]):
            sequence = self.engine.submit(
                request["prompt"],
                request["sampling"],
                sample=sample,
                decoder=Letters(),
                allowed=request["allowed"],
                conditions=request["conditions"],
                adapter=request["adapter"],
                beside=answers[-1] if answers else None,
            )
            answers.append(sequence)

    def step(self):
        waiting = [s for s in self.engine.scheduler.sequences if not s.finished]
        before = [(s, s.row, len(s.tokens) + s.computed) for s in waiting]
        running = {s.id for s in waiting if s.row is not None and s.pending == 1}
        try:
            with self.interrupting(*self.interrupts.get(self.time, ("", 0))):
                events = self.engine.step()
        except KeyboardInterrupt:
            return
        self.check_pages()
        for work in self.network.steps:
            assert sum(count for _, count in work) <= self.budget
        steady = self.network.config.rereads_at is None and not self.interrupts
        ran = (
            each for each in before if (each[1], each[0].row) != (None, None) or each[0].finished
        )
        if steady and (earliest := next(ran, None)):
            first, _, done = earliest
            moved = len(first.tokens) + first.computed > done
            assert moved or first.finished, "the first was held up"
        if steady and self.ample:
            assert running <= {event.sequence for event in events}, "a running answer was held up"

    def check_pages(self):
        """Every page is held by those who list it, and by nobody else."""
        listed = [page for s in self.engine.scheduler.sequences for page in s.pages if page]
        pool = self.engine.scheduler.holdings.pool
        every = range(1, pool.pages + 1)
        assert [pool.references(page) for page in every] == [listed.count(page) for page in every]

    @contextmanager
    def interrupting(self, kind: str, left: int) -> Iterator[None]:
        countdown = iter([*[None] * left, KeyboardInterrupt])

        def tick(*_: object) -> Any:
            if next(countdown, None):
                raise KeyboardInterrupt
            return tick

        def tick_in_files(frame: Any, *_: object) -> Any:
            files = [module.__file__ for module in (holdings, pages, scheduler)]
            return tick if frame.f_code.co_filename in files else None

        self.network.interrupt = tick if kind == "forward" else lambda: None
        before = sys.gettrace()
        if kind == "line":
            sys.settrace(tick_in_files)
        try:
            yield
        finally:
            sys.settrace(before)

    def expected(self, request, sample):
        return naive_answer(
            partial(self.network.next_logits, adapter=request["adapter"]),
            request["prompt"],
            request["sampling"],
            end_tokens=[END],
            context=CONTEXT,
            sample=sample,
            allowed=request["allowed"],
        )


@settings(max_examples=100, deadline=None)
@given(engines, st.lists(requests, max_size=7), interrupts)
def test_each_sequence_gets_what_it_would_get_alone(options, requests, interrupts):
    traffic = Traffic(options, requests, interrupts)
    traffic.run()
    assert traffic.network.cache.lengths == [0] * options["rows"]
    assert traffic.engine.statistics.used == 0
    for request, sequences in zip(requests, traffic.sequences, strict=True):
        for sample, sequence in enumerate(sequences):
            check(sequence, traffic.expected(request, sample))


def check(sequence, expected):
    """What was answered is what was to be answered, or the beginning of it."""
    got = sequence.generated
    if sequence.finish_reason == "cancelled":
        assert got == expected.tokens[: len(got)]
        return
    assert (got, sequence.text) == (expected.tokens, expected.text)
    assert sequence.finish_reason == expected.finish_reason
    drawn = [event for event in sequence.events if event.token is not None]
    assert [event.token for event in drawn] == got
    assert [event.logprob for event in drawn] == expected.logprobs
    last = [event.finish_reason for event in sequence.events]
    assert last == [None] * (len(last) - 1) + [expected.finish_reason]
