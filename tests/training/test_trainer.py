import math

import pytest
import torch
from torch import nn

from limner.language_model import load
from limner.objectives.loss import Loss
from limner.objectives.next_token import NextToken
from limner.training.average import WeightAverage
from limner.training.optimizers import Optimizers, OptimizerSettings
from limner.training.speed import training_operations
from tests.families import gpt2
from tests.objectives.batches import network
from tests.tokenizers.samples import byte_level
from tests.training.runs import FIELDS, events, losses, trainer, validation, weights


def assert_same_weights(one, other, tolerance=0.0):
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=tolerance, rtol=0, msg=name)


def test_a_run_learns_and_starts_at_the_log_of_the_vocabulary(tmp_path):
    trained = trainer(tmp_path, steps=60, save_every=100)
    trained.fit()
    first, *_, last = [loss for _, loss in losses(tmp_path)]
    assert first == pytest.approx(math.log(97), abs=0.1)
    assert last < first / 2


def test_micro_batches_change_nothing(tmp_path):
    whole, parts = trainer(tmp_path / "1"), trainer(tmp_path / "2", micro_rows=1)
    for each in (whole, parts):
        each.fit()
    for (_, one), (_, other) in zip(losses(tmp_path / "1"), losses(tmp_path / "2"), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert_same_weights(weights(whole), weights(parts), 1e-4)


def test_the_gradient_is_divided_once_by_all_weights(tmp_path):
    """Averaging the averages of ragged micro-batches would give another gradient."""
    trained = trainer(tmp_path, clip=None)
    batch = next(iter(validation()))
    gradients = []
    for parts in ([batch], batch.split(1)):
        total = sum((trained.accumulate(part) for part in parts), Loss(0.0, 0.0))
        trained.optimizers.divide_gradients(total.weight)
        gradients.append([p.grad.clone() for p in trained.optimizers.parameters])  # type: ignore[union-attr]
        trained.optimizers.forget_gradients()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


# Adafactor's rate is a share of each weight's own size, so it is of another order.
@pytest.mark.parametrize(("kind", "rate"), [("adamw", 2e-2), ("muon", 2e-2), ("adafactor", 0.3)])
def test_every_optimizer_learns(tmp_path, kind, rate):
    trainer(tmp_path, optimizer={"kind": kind, "rate": rate}, steps=40).fit()
    (_, first), *_, (_, last) = losses(tmp_path)
    assert last < first - 0.5


def test_recomputing_changes_memory_and_nothing_else(tmp_path):
    plain, again = trainer(tmp_path / "1"), trainer(tmp_path / "2", recompute=True)
    plain.fit()
    again.fit()
    assert_same_weights(weights(plain), weights(again))


class Broken(NextToken):
    """Not a number at some calls."""

    bad: set[int]
    calls: int

    def __init__(self, bad):
        object.__setattr__(self, "bad", bad)
        object.__setattr__(self, "calls", 0)
        object.__setattr__(self, "balance", 0.0)

    def loss(self, network, batch):
        object.__setattr__(self, "calls", self.calls + 1)
        loss = super().loss(network, batch)
        return Loss(loss.total * math.nan, loss.weight) if self.calls in self.bad else loss


def test_a_step_that_is_not_finite_is_refused_and_counted(tmp_path):
    trained = trainer(tmp_path, Broken({3, 4}), steps=6, save_every=100)
    kept = []
    trained.log.listeners = (lambda event: kept.append((event, weights(trained))),)
    standing = trained.fit()
    assert standing.refused == 2
    steps = [(event, tensors) for event, tensors in kept if event["event"] == "step"]
    assert [event["loss"] is None for event, _ in steps] == [False, False, True, True, False, False]
    assert_same_weights(steps[1][1], steps[3][1])
    assert all(tensor.isfinite().all() for tensor in steps[5][1].values())
    assert any((steps[5][1][name] != steps[3][1][name]).any() for name in steps[0][1])


def test_a_hopeless_run_ends_with_advice(tmp_path):
    trained = trainer(tmp_path, Broken(range(100)), steps=60)
    with pytest.raises(
        ValueError, match=r"20 steps in a row were not finite, up to step 20: lower"
    ):
        trained.fit()


def test_validation_weighs_every_token_alike(tmp_path):
    trained = trainer(tmp_path, validation=validation, bytes_per_token=2.0)
    trained.fit()
    found = events(tmp_path, "validation")
    assert [event["step"] for event in found] == [4, 8, 12]
    whole = [NextToken().loss(trained.network, batch).detach() for batch in validation()]
    mean = float(sum(loss.total for loss in whole) / sum(loss.weight for loss in whole))
    assert found[-1]["loss"] == pytest.approx(mean, abs=1e-6)
    assert found[-1]["bits_per_byte"] == pytest.approx(mean / math.log(2) / 2, abs=1e-6)


def test_early_stop_keeps_the_best_model(tmp_path):
    options = {"validation": validation, "patience": 2, "validate_every": 2, "steps": 400}
    trained = trainer(tmp_path, **options, optimizer={"rate": 3e-2})
    standing = trained.fit()
    found = [event["loss"] for event in events(tmp_path, "validation")]
    assert standing.step < 400
    assert standing.stopped_early
    assert len(found) - 1 - found.index(min(found)) == 2
    best = load_network(tmp_path / "model")
    mean = trainer(tmp_path / "other", validation=validation)
    mean.network.load_state_dict(best.state_dict())
    assert mean.validate()["loss"] == pytest.approx(min(found), abs=1e-6)
    assert trainer(tmp_path, **options).fit().step == standing.step  # no further step


def load_network(folder):
    from limner.checkpoints.checkpoint import open_checkpoint

    return open_checkpoint(folder).network()


def test_the_average_of_the_weights_is_what_is_kept(tmp_path):
    trained = trainer(tmp_path, average=0.9)
    trained.fit()
    model = dict(load_network(tmp_path / "model").named_parameters())
    assert trained.average is not None
    for name, tensor in trained.average.tensors.items():
        torch.testing.assert_close(model[name], tensor, rtol=0, atol=0)
    assert any((model[name] != p).any() for name, p in trained.network.named_parameters())


def test_the_average_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, 0.5)
    before = layer.weight.item()
    with torch.no_grad():
        layer.weight.fill_(2.0)
    average.update(100)
    assert average.tensors["weight"].item() == pytest.approx((before + 2) / 2)
    with average.applied():
        assert layer.weight.item() == pytest.approx((before + 2) / 2)
    assert layer.weight.item() == 2


def test_the_result_is_a_model_that_answers(tmp_path):
    tokenizer = byte_level()
    fields = FIELDS | {"vocab_size": tokenizer.vocabulary_size}
    options = {"samples": ("the",), "sample_tokens": 5, "validate_every": 4}
    trainer(tmp_path, fields=fields, tokenizer=tokenizer, validation=validation, **options).fit()
    assert [event["step"] for event in events(tmp_path, "samples")] == [4, 8, 12]
    (sample,) = events(tmp_path, "samples")[-1]["samples"]
    model = load(tmp_path / "model")
    answer = model.generate("the", max_tokens=5, temperature=0.8, seed=0)
    assert sample == {"prompt": "the", "text": answer.text}


def test_decay_is_for_matrices_inside():
    model = network(gpt2())
    adamw = Optimizers(model, OptimizerSettings()).all[0]
    decayed, others = (
        {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}
        for group in adamw.param_groups
    )
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert "blocks.0.mixer.query.weight" in decayed
    assert {"embedding.tokens.weight", "embedding.positions.weight", "norm.weight"} <= others
    assert "blocks.0.mixer.query.bias" in others
    assert len(decayed) + len(others) == len(list(model.parameters()))


def test_frozen_parameters_stay(tmp_path):
    trained = trainer(tmp_path)
    trained.network.blocks[0].requires_grad_(False)
    frozen = trainer(tmp_path)
    frozen.network.blocks[0].requires_grad_(False)
    frozen.optimizers = Optimizers(frozen.trained, frozen.settings.optimizer)
    before = weights(frozen)
    frozen.fit()
    changed = {name for name, p in frozen.network.named_parameters() if (p != before[name]).any()}
    assert changed == {name for name in before if not name.startswith("blocks.0.")}


def test_operations_are_six_a_weight_and_token_and_attention():
    model = network(FIELDS)
    looked_up = model.embedding.tokens.weight.numel()
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1) - looked_up
    attention = 2 * 2 * 2 * 12 * 16  # layers, scores and values, heads, head width, keys
    assert training_operations(model, 32) == 3 * (2 * matrices + 2 * attention)
