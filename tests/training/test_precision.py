import pytest
import torch
from torch import nn

from limner.training.precision import WORTHWHILE, in_half
from tests.training.runs import events, losses, trainer

LARGE, SMALL = nn.Linear(2000, WORTHWHILE // 2000), nn.Linear(100, 100)


@pytest.mark.parametrize(
    ("able", "half"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_a_processor_that_multiplies_bfloat16_does_so_where_it_pays(monkeypatch, able, half):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert in_half("auto", LARGE) == half
    assert not in_half("auto", SMALL)


def test_who_says_what_gets_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert in_half("bfloat16", SMALL)
    assert not in_half("float32", LARGE)


def test_an_old_pytorch_says_nothing(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not in_half("auto", LARGE)


def test_products_are_halved_and_weights_are_not(tmp_path):
    """A loss is no product, so it is not rounded to the 8 bits of bfloat16."""
    seen = []
    mixed = trainer(tmp_path / "half", precision="bfloat16", steps=60)
    for module in mixed.network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    exact = trainer(tmp_path / "exact", steps=60)
    for each in (mixed, exact):
        each.fit()
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in mixed.network.parameters()} == {torch.float32}
    (_, one), *_, (_, last) = losses(tmp_path / "half")
    (_, other), *_, (_, exact_last) = losses(tmp_path / "exact")
    assert one != other
    assert one == pytest.approx(other, abs=0.002)
    assert last == pytest.approx(exact_last, abs=0.1)
    assert last < one / 2


def test_a_resumed_run_in_half_is_the_one_without_a_stop(tmp_path):
    trainer(tmp_path / "1", precision="bfloat16").fit()
    stopped = trainer(tmp_path / "2", precision="bfloat16")
    stopped.folder.mkdir()
    for _ in range(5):
        stopped.step()
    stopped.save()
    trainer(tmp_path / "2", precision="bfloat16").fit()
    assert losses(tmp_path / "1") == losses(tmp_path / "2")


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_log_says_in_what_numbers(tmp_path, precision):
    trainer(tmp_path, precision=precision, steps=1).fit()
    assert events(tmp_path, "start")[0]["precision"] == precision
