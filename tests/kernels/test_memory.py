"""Memory for weights: apart from one another, in large pages, and gone with the weights."""

import gc
import sys
from pathlib import Path

import pytest
import torch

from limner import kernels
from limner.kernels import memory
from limner.kernels.memory import weight_memory

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux")


@pytest.fixture(autouse=True)
def a_mapping_of_its_own(monkeypatch):
    monkeypatch.setattr(memory, "_open", None)
    monkeypatch.setattr(memory, "_next", 0)


def test_weights_lie_apart_each_at_the_start_of_a_cache_line():
    weights = [
        weight_memory((n, 3), dtype)
        for n in (1, 5, 64)
        for dtype in (torch.uint8, torch.float16, torch.float32)
    ]
    for number, weight in enumerate(weights):
        weight.fill_(number)
    assert [set(weight.flatten().tolist()) for weight in weights] == [{n} for n in range(9)]
    assert all(weight.data_ptr() % 64 == 0 for weight in weights)
    assert weight_memory((0, 3), torch.float32).shape == (0, 3)


def test_one_larger_than_a_mapping_has_its_own(monkeypatch):
    monkeypatch.setattr(memory, "_CHUNK", 1 << 16)
    small, large, last = (weight_memory((n,), torch.uint8).fill_(n % 7) for n in (9, 1 << 17, 11))
    assert (small == 2).all()
    assert (large == (1 << 17) % 7).all()
    assert (last == 4).all()


@LINUX
def test_a_mapping_goes_with_its_last_weight():
    first, second = weight_memory((4,), torch.int32), weight_memory((4,), torch.int32)
    assert memory._open is not None
    mapping = memory._open
    del first
    gc.collect()
    second.fill_(3)
    assert mapping() is not None
    del second
    gc.collect()
    assert mapping() is None
    assert weight_memory((4,), torch.int32).fill_(1).sum() == 4  # in a new one


def flags_of(address):
    """What the system notes about the mapping at an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        start, dash, rest = line.partition("-")
        if dash and all(digit in "0123456789abcdef" for digit in start):
            inside = int(start, 16) <= address < int(rest.split()[0], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no mapping holds it")


@LINUX
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a system without large pages"
)
def test_packed_weights_ask_for_large_pages():
    matrix = torch.randn(64, 64)
    rounded, floats = kernels.quantize(matrix), kernels.pack_floats(matrix)
    for tensor in (rounded.codes, rounded.scales, floats.values):
        assert "hg" in flags_of(tensor.data_ptr())
