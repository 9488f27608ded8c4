import json

import pytest

from limner import kernels
from limner.commands import bench


def test_the_figures_are_those_of_the_machine_and_the_model(limner, tiny, monkeypatch):
    monkeypatch.setattr("limner.inference.measuring.LARGE", 2**22)
    monkeypatch.setattr("limner.inference.measuring.product_peak", lambda bits: 1e9 * bits)
    monkeypatch.setattr("limner.inference.measuring.ROUNDS", 1)
    out = limner("bench", tiny, "streams=[1,3]", "prompt=5", "tokens=4", "--json").out
    facts = json.loads(out)
    assert [speed["streams"] for speed in facts["speeds"]] == [1, 3]
    assert all(speed["decode"] > 0 and speed["prefill"] > 0 for speed in facts["speeds"])
    assert facts["bytes_per_second"] > 1e6
    assert facts["operations_per_second"] == 32e9
    assert facts["threads"] == kernels.get_threads()
    assert facts["kernels"] in [*kernels.available(), "plain PyTorch"]


def test_shares_are_of_what_memory_and_processor_allow():
    facts = {
        "kernels": "portable", "why": "the only one", "threads": 2, "weights": "8 bits",
        "weight_bytes": 10**6, "bytes_per_second": 10**8, "operations_per_second": 10**9,
        "operations_per_token": 10**6,
        "speeds": [{"streams": 2, "decode": 100.0, "prefill": 250.0}],
    }  # fmt: skip
    *_, last = bench.report(facts)
    assert last.split() == ["2", "100.0", "50%", "250", "25%"]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("streams=[0]", "streams must be 1 or more, not 0"),
        ("prompt=9000", "9000 tokens of prompt and 32 of answer do not fit the context of 8192"),
        ("tokens=1", "tokens: expected greater than or equal to 2, not 1"),
    ],
)
def test_what_cannot_be_measured_is_one_line(refused, tiny, setting, problem):
    assert problem in refused("bench", tiny, setting)
