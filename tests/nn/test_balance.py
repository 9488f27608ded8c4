"""Both ways of balancing see the load and even it out."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from limner.nn.balance import balance_loss, balance_routers, watch_routing
from limner.nn.mixture import Mixture, MixtureConfig, RouterConfig

WIDTH, EXPERTS, CHOSEN = 8, 6, 2


def skewed(balanced: bool = False) -> nn.Sequential:
    """One mixture whose router likes some experts better."""
    router = RouterConfig(EXPERTS, CHOSEN)
    if balanced:
        router = replace(router, score="sigmoid", balanced=True)
    layer = MixtureConfig(router, 4).build(WIDTH)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
        layer.router.score.weight += torch.linspace(-0.4, 0.4, EXPERTS)[:, None]
    return nn.Sequential(layer)


def some_hidden(rows: int = 16) -> torch.Tensor:
    """Random vectors whose mean is not zero."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 20, WIDTH, generator=generator) + 0.5


def unevenness(load: torch.Tensor) -> float:
    """How far the busiest expert is above the mean."""
    return float(load.max() / load.float().mean())


def test_the_loads_add_up_to_all_choices():
    network = skewed()
    with watch_routing(network) as record:
        network(some_hidden())
    ((name, load),) = record.loads().items()
    assert name == "0.router"
    assert load.sum() == 16 * 20 * CHOSEN


def test_nothing_is_recorded_after_the_watch():
    network = skewed()
    with watch_routing(network) as record:
        pass
    network(some_hidden())
    assert record.routings == {}


def test_the_loss_equals_that_of_switch_transformers():
    network, hidden = skewed(), some_hidden()
    layer = network[0]
    assert isinstance(layer, Mixture)
    with watch_routing(network) as record:
        network(hidden)
    logits = hidden.flatten(0, 1) @ layer.router.score.weight.t()
    expected = load_balancing_loss_func((logits,), EXPERTS, CHOSEN)
    torch.testing.assert_close(balance_loss(record), expected)


def test_padding_does_not_count():
    network, hidden = skewed(), some_hidden()
    weights = torch.ones(16, 20)
    weights[:, 13:] = 0
    with watch_routing(network) as whole:
        network(hidden)
    with watch_routing(network) as short:
        network(hidden[:, :13])
    torch.testing.assert_close(balance_loss(whole, weights), balance_loss(short))


def test_the_loss_is_least_when_the_load_is_even_and_training_on_it_evens_it():
    network, hidden = skewed(), some_hidden()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    with watch_routing(network) as record:
        network(hidden)
        before = unevenness(next(iter(record.loads().values())))
        for _ in range(60):
            network(hidden)
            optimizer.zero_grad()
            balance_loss(record).backward()
            optimizer.step()
        network(hidden)
    after = unevenness(next(iter(record.loads().values())))
    assert before > 1.5
    assert after < 1.2
    assert balance_loss(record).item() == pytest.approx(CHOSEN, abs=0.05)


def test_the_bias_alone_moves_the_load_towards_even():
    network, hidden = skewed(balanced=True), some_hidden()
    with watch_routing(network) as record, torch.no_grad():
        network(hidden)
        before = unevenness(record.loads()["0.router"])
        for _ in range(300):
            network(hidden)
            balance_routers(network, record.loads(), speed=0.002)
    assert before > 1.5
    assert unevenness(record.loads()["0.router"]) < 1.15


def test_a_router_without_a_bias_says_so():
    with pytest.raises(ValueError, match="no balancing bias"):
        balance_routers(skewed(), {"0.router": torch.ones(EXPERTS)})


def test_a_dense_network_has_no_balance_loss():
    with watch_routing(nn.Linear(2, 2)) as record:
        pass
    with pytest.raises(ValueError, match="no routers"):
        balance_loss(record)
