"""A captured forward pass replays to the bit, and says what it cannot replay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limner import kernels
from limner.kernels.library import load


class Step:
    """A small decoder made of kernels, its inputs in fixed tensors."""

    def __init__(self, batch=2, width=64, heads=4, key_heads=2, vocabulary=100):
        torch.manual_seed(0)
        self.table = kernels.quantize(torch.randn(vocabulary, width))
        self.head_width = width // heads
        keys = key_heads * self.head_width
        sizes = {"query": (width, width), "key": (keys, width), "value": (keys, width),
                 "output": (width, width), "gate": (96, width), "up": (96, width),
                 "down": (width, 96)}  # fmt: skip
        self.layers = [
            {name: kernels.quantize(torch.randn(size) / 8, 4, minimum=True)
             for name, size in sizes.items()} for _ in range(3)
        ]  # fmt: skip
        self.norm, self.frequency = torch.rand(width), torch.rand(self.head_width // 2)
        self.caches = [torch.zeros(2, batch, key_heads, 50, self.head_width) for _ in range(3)]
        self.tokens, self.positions = torch.arange(batch), torch.zeros(batch, dtype=torch.int64)
        self.texts = torch.arange(batch)

    def heads(self, hidden, weight):
        return kernels.linear_quantized(hidden, weight).unflatten(-1, (-1, self.head_width))

    def layer(self, hidden, weights, cache, angles, places):
        normed = kernels.rms_norm(hidden, self.norm, 1e-5)
        query, key, value = (
            self.heads(normed, weights[name]) for name in ("query", "key", "value")
        )
        query, key = kernels.rotate(query, *angles), kernels.rotate(key, *angles)
        kernels.store(key, cache[0], places)
        kernels.store(value, cache[1], places)
        mixed = kernels.attend(query, cache[0], cache[1], places, 0.25).flatten(-2)
        hidden = hidden + kernels.linear_quantized(mixed, weights["output"])
        normed = kernels.rms_norm(hidden, self.norm, 1e-5)
        gate, up = (kernels.linear_quantized(normed, weights[name]) for name in ("gate", "up"))
        return hidden + kernels.linear_quantized(kernels.gated(gate, up), weights["down"])

    def __call__(self):
        hidden = kernels.embed(self.tokens, self.table)
        angles = kernels.rotary_angles(self.positions, self.frequency)
        places = kernels.Places(self.texts, self.positions)
        for weights, cache in zip(self.layers, self.caches, strict=True):
            hidden = self.layer(hidden, weights, cache, angles, places)
        logits = kernels.linear_quantized(kernels.rms_norm(hidden, self.norm, 1e-5), self.table)
        return logits, kernels.argmax(logits)


@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_replay_equals_the_forward_pass_to_the_bit(variant, batch, threads):
    kernels.set_threads(threads, pin=False)
    captured, plain = Step(batch), Step(batch)
    with kernels.capture() as plan:
        logits, best = captured()
    assert plan.complete
    assert torch.equal(logits, plain()[0])
    for position in range(1, 40):
        for step in (captured, plain):
            step.positions.fill_(position)
            step.tokens.copy_(best if step is plain else best.clone())
        plan.replay()
        expected_logits, expected_best = plain()
        assert torch.equal(logits, expected_logits)
        assert torch.equal(best, expected_best)


@pytest.mark.parametrize(("batch", "meetings"), [(1, 7), (9, 10)])
def test_threads_meet_only_where_they_must(variant, batch, meetings):
    with kernels.capture() as plan:
        Step(batch)()
    # Query, key and value share one input and wait for nothing in between; so do gate, up, their
    # product, and the residual sum after a product. With one stream each thread normalises and
    # rounds for itself; otherwise all wait for what each did for some tokens.
    assert plan.meetings == pytest.approx(3 * meetings, abs=4)


@pytest.mark.parametrize("overwritten", [False, True])
def test_few_tokens_are_normalised_again_only_from_what_is_still_there(variant, overwritten):
    start, weight = torch.randn(2, 64), kernels.quantize(torch.randn(40, 64))
    half = kernels.quantize(torch.randn(40, 32))
    normed = kernels.rms_norm(2 * start, None, 1e-5)
    expected = [
        kernels.linear_quantized(*pair) for pair in ((normed, weight), (normed[:, :32], half))
    ]
    with kernels.capture() as plan:
        hidden = kernels.add(start, start)
        normed = kernels.rms_norm(hidden, None, 1e-5)
        if overwritten:
            del hidden
            for _ in range(20):  # the memory of what is gone is taken again
                kernels.add(start, normed)
        results = [
            kernels.linear_quantized(normed, weight),
            kernels.linear_quantized(normed[:, :32], half),
        ]
    kernels.set_threads(3, pin=False)  # more than there was memory for at capture
    plan.replay()
    for result, right in zip(results, expected, strict=True):
        assert torch.equal(result, right)


def test_memory_that_is_free_again_is_used_again(variant):
    with kernels.capture() as plan:
        Step(1)()
    small = plan.nbytes
    with kernels.capture() as plan:
        hidden = torch.zeros(512, 512)
        for _ in range(100):
            hidden = kernels.add(hidden, hidden)
    assert small < 2**21
    assert plan.nbytes < 10 * hidden.nbytes


def test_plans_may_share_their_memory(variant):
    memory, inputs, results, plans = kernels.Memory(), [], [], []
    for rows in (3000, 40, 5000):
        inputs.append(torch.randn(rows, 64))
        with kernels.capture(memory) as plan:
            results.append(kernels.add(inputs[-1], inputs[-1]))
        plans.append(plan)
    assert plans[0].nbytes == plans[1].nbytes == plans[2].nbytes == 16 << 20
    assert len({result.data_ptr() for result in results}) == 1
    for given, result, plan in zip(inputs, results, plans, strict=True):
        given.fill_(2.0)
        plan.replay()
        assert torch.equal(result, torch.full_like(given, 4.0))


def test_plans_share_a_memory_that_was_made_before_kernels_were_chosen(variant, monkeypatch):
    with kernels.using(None):
        memory = kernels.Memory()
    library: Any = load(variant)
    functions = library.handle
    new_plan, shared = functions.limner_plan_new, []

    def noted(handle):
        shared.append(handle)
        return new_plan(handle)

    monkeypatch.setattr(functions, "limner_plan_new", noted)
    weight, given = kernels.quantize(torch.randn(32, 64)), torch.randn(6, 64)
    for _ in range(2):
        with kernels.capture(memory) as plan:
            result = kernels.linear_quantized(given, weight)
        given.normal_()
        plan.replay()
        assert torch.equal(result, kernels.linear_quantized(given, weight))
    assert shared[0] is not None
    assert shared[0] == shared[1]


def test_variants_do_not_share_what_their_kernels_hand_on(variant):
    memory = kernels.Memory()
    libraries = [load(name) for name in kernels.available()]
    handles = [memory.handle(library) for library in libraries]
    assert len(set(handles)) == len(handles)
    assert handles == [memory.handle(library) for library in libraries]


def test_what_kernels_hand_on_is_made_again_once_it_is_overwritten(variant):
    weights = [kernels.quantize(torch.randn(32, 64)) for _ in range(2)]
    inputs = [torch.randn(6, 64) for _ in range(8)]

    def work():
        first = kernels.linear_quantized(inputs[0], weights[0])
        others = [kernels.linear_quantized(given, weights[0]) for given in inputs[1:]]
        return [first, *others, kernels.linear_quantized(inputs[0], weights[1])]

    with kernels.capture() as plan:
        results = work()
    for given in inputs:
        given.normal_()
    plan.replay()
    assert all(torch.equal(*pair) for pair in zip(results, work(), strict=True))


def test_results_outlive_the_plan(variant):
    with kernels.capture() as plan:
        result = kernels.add(torch.ones(1000), torch.ones(1000))
    del plan
    assert torch.equal(result, torch.full((1000,), 2.0))


def test_sums_and_products_of_pytorch_become_kernels(variant):
    first, second = torch.ones(3, 4), torch.ones(3, 4)
    with kernels.capture() as plan:
        result = (first + second) * second
    first.fill_(5.0)
    plan.replay()
    assert torch.equal(result, torch.full((3, 4), 6.0))


def test_an_operator_that_is_no_kernel_is_named(variant):
    hidden = torch.ones(3, 4)
    with kernels.capture() as plan:
        kernels.add(hidden, hidden).cumsum(0)
    assert plan.foreign == ["aten.cumsum.default"]
    with pytest.raises(ValueError, match=r"lacks aten.cumsum.default: run the forward pass itself"):
        plan.replay()


def test_views_are_let_through_and_hidden_copies_are_not(variant):
    hidden = torch.ones(2, 3, 4)
    with kernels.capture() as plan:
        kernels.add(hidden.flatten(0, 1)[1:], hidden.view(6, 4)[:-1])
    assert plan.complete
    with kernels.capture() as plan:
        kernels.add(hidden.transpose(0, 2), hidden.transpose(0, 2))
    assert plan.foreign == ["a copy to make a kernel's input contiguous"]


def test_without_compiled_kernels_there_is_no_plan():
    with kernels.using(None), kernels.capture() as plan:
        kernels.add(torch.ones(1), torch.ones(1))
    assert not plan.complete
    assert "no compiled kernels" in plan.foreign
