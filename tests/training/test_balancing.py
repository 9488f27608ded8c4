"""A mixture's biases move with every step, by the load of all its tokens."""

import pytest
import torch

from limner.data.batches import collate
from limner.nn.balance import watch_routing
from limner.nn.mixture import Router
from limner.objectives.next_token import documents_of
from tests.decoder_families import deepseek
from tests.training.runs import trainer, weights

FIELDS = deepseek("deepseek_v3")
SPEED = 0.01


def biases(network):
    return {
        name: module.bias.clone()
        for name, module in network.named_modules()
        if isinstance(module, Router) and module.bias is not None
    }


def loads(trained, batch):
    """What each expert gets of the tokens of a batch that are no padding."""
    with watch_routing(trained.network) as record, torch.no_grad():
        trained.network(batch.tokens, state=documents_of(batch))
    return record.loads(batch.mask.float())


@pytest.mark.parametrize("changes", [{}, {"micro_rows": 1}, {"recompute": True}])
def test_a_step_moves_biases_by_the_sign_of_what_is_missing(tmp_path, changes):
    trained = trainer(tmp_path, fields=FIELDS, balance_speed=SPEED, steps=1, **changes)
    same = trainer(tmp_path / "same", fields=FIELDS)
    batch = collate([next(same.stream) for _ in range(4)])
    wanted = {n: SPEED * (load.mean() - load).sign() for n, load in loads(same, batch).items()}
    trained.fit()
    moved = biases(trained.network)
    assert moved.keys() == wanted.keys() != set()
    for name, bias in moved.items():
        torch.testing.assert_close(bias, wanted[name])


def test_a_run_that_goes_on_has_the_same_biases(tmp_path):
    whole = trainer(tmp_path / "1", fields=FIELDS, balance_speed=SPEED, steps=6)
    whole.fit()
    stopped = trainer(tmp_path / "2", fields=FIELDS, balance_speed=SPEED, steps=6)
    stopped.log.listeners = (lambda event: setattr(stopped, "stopping", event.get("step", 0) >= 3),)
    stopped.fit()
    again = trainer(tmp_path / "2", fields=FIELDS, balance_speed=SPEED, steps=6)
    again.fit()
    found = biases(again.network)
    for name, bias in biases(whole.network).items():
        assert bias.abs().max() > SPEED
        torch.testing.assert_close(bias, found[name], rtol=0, atol=0)
    assert all((weights(whole)[n] == tensor).all() for n, tensor in weights(again).items())


def test_mixtures_without_a_bias_are_left_alone(tmp_path):
    trained = trainer(tmp_path, fields=deepseek("deepseek_v2"), steps=2)
    trained.fit()
    assert not trained.balancer.routers
