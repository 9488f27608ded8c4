"""A mixture weights what it chooses, and treats each token by itself."""

import pytest
import torch
from torch.nn import functional

from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import Mixture, MixtureConfig, RouterConfig, idle_parameters

WIDTH, INNER = 6, 8


def mixture(shared: FeedForwardConfig | None = None, **router: object) -> Mixture:
    """A mixture with random weights."""
    settings = {"experts": 4, "chosen": 2} | router
    config = MixtureConfig(RouterConfig(**settings), INNER, shared=shared)  # type: ignore[arg-type]
    built = config.build(WIDTH)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return built


def some_hidden(rows: int = 2, time: int = 7) -> torch.Tensor:
    """Random hidden vectors."""
    return torch.randn(rows, time, WIDTH, generator=torch.Generator().manual_seed(1))


def expert(layer: Mixture, number: int, token: torch.Tensor) -> torch.Tensor:
    """What one expert makes of one token."""
    gate, up, down = (matrix[number] for matrix in layer.experts.parameters())
    return down @ (functional.silu(gate @ token) * (up @ token))


def test_the_result_is_the_sum_of_the_two_best_experts_weighted_by_their_gates():
    layer, hidden = mixture(), some_hidden()
    mixed = layer(hidden)
    for row, place in ((0, 0), (1, 4), (1, 6)):
        token = hidden[row, place]
        scores = (layer.router.score.weight @ token).softmax(0)
        (first, second), (one, two) = scores.topk(2)
        expected = first * expert(layer, int(one), token) + second * expert(layer, int(two), token)
        torch.testing.assert_close(mixed[row, place], expected / (first + second))


def test_gates_left_as_they_are_do_not_sum_to_one():
    routing = mixture(normalise=False, scale=3.0).router(some_hidden().flatten(0, 1))
    torch.testing.assert_close(routing.gates, 3 * routing.scores.topk(2).values)


def test_shared_experts_see_every_token():
    layer, hidden = mixture(FeedForwardConfig(5)), some_hidden()
    with_shared = layer(hidden)
    assert layer.shared is not None
    shared = layer.shared(hidden)
    layer.shared = None
    torch.testing.assert_close(with_shared, layer(hidden) + shared)


def test_a_token_does_not_depend_on_its_batch_mates():
    layer, hidden = mixture(), some_hidden()
    torch.testing.assert_close(layer(hidden)[1, 3], layer(hidden[1:, 3:4])[0, 0])


def test_all_tokens_to_one_expert_are_all_kept():
    layer = mixture(chosen=1)
    with torch.no_grad():
        layer.router.score.weight.zero_()  # all scores equal: topk takes the same for all
    hidden = some_hidden()
    routing = layer.router(hidden.flatten(0, 1))
    (chosen,) = routing.experts.unique().tolist()
    torch.testing.assert_close(layer(hidden)[0, 5], expert(layer, chosen, hidden[0, 5]))


def test_only_experts_of_the_best_groups_are_chosen():
    layer = mixture(experts=6, groups=3, chosen_groups=1, group_best=2, score="sigmoid")
    routing = layer.router(some_hidden().flatten(0, 1))
    merit = routing.scores.unflatten(1, (3, 2)).sum(-1)
    assert torch.equal(routing.experts // 2, merit.argmax(-1, keepdim=True).expand(-1, 2))


def test_the_balancing_bias_chooses_but_does_not_weight():
    layer = mixture(balanced=True, score="sigmoid", normalise=False)
    assert layer.router.bias is not None
    layer.router.bias[3] = 10.0
    routing = layer.router(some_hidden().flatten(0, 1))
    assert (routing.experts == 3).any(-1).all()
    torch.testing.assert_close(routing.gates, routing.scores.gather(1, routing.experts))


def test_gradient_reaches_the_router_and_each_expert_that_was_chosen():
    layer = mixture()
    layer(some_hidden(8, 16)).square().sum().backward()
    assert layer.router.score.weight.grad is not None
    assert layer.router.score.weight.grad.any()
    for matrix in layer.experts.parameters():
        assert matrix.grad is not None
        assert matrix.grad.flatten(1).any(-1).all()


def test_idle_parameters_are_those_of_the_experts_not_chosen():
    assert idle_parameters(mixture()) == 2 * 3 * WIDTH * INNER


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 4, "chosen": 5}, "5 experts cannot be chosen of 4"),
        ({"experts": 4, "chosen": 0}, "0 experts cannot be chosen"),
        ({"experts": 5, "chosen": 1, "groups": 2}, "5 experts do not make 2 even groups"),
        ({"experts": 8, "chosen": 3, "groups": 4}, "of the 2 in 1 groups"),
    ],
)
def test_impossible_routers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RouterConfig(**settings)
