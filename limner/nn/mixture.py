"""Mixture of experts: each token goes through a few of many feed-forward layers.

N tokens, D width, F inner width, E experts, C experts chosen for a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.kernels import Activation
from limner.kernels.activations import ACTIVATIONS
from limner.nn.feedforward import FeedForwardConfig


class Routing(NamedTuple):
    """Where a router sent each token."""

    experts: Tensor  # (N, C) int64
    gates: Tensor  # (N, C): what each chosen expert's result is multiplied by
    scores: Tensor  # (N, E): what the router thinks of every expert


@dataclass(frozen=True)
class RouterConfig:
    """How experts are chosen and weighted.

    A token goes to the `chosen` of `experts` with the highest scores: "softmax" (Shazeer et al.
    2017) or "sigmoid" (DeepSeek-V3). `normalise` makes the gates of a token sum to 1; `scale`
    multiplies them then. With `groups`, only experts of the `chosen_groups` best groups count, a
    group being as good as the sum of its `group_best` best (DeepSeek-V2: 1, V3: 2). `balanced` adds
    a bias to the scores that choose, not to the gates, which training moves towards an even load
    without a loss (Wang et al. 2024).
    """

    experts: int
    chosen: int
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    chosen_groups: int = 1
    group_best: int = 1
    balanced: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.chosen <= self.experts:
            raise ValueError(
                f"{self.chosen} experts cannot be chosen of {self.experts}: "
                f"choose from 1 to {self.experts}"
            )
        if self.experts % self.groups:
            raise ValueError(f"{self.experts} experts do not make {self.groups} even groups")
        reachable = self.experts // self.groups * self.chosen_groups
        if self.chosen > reachable:
            raise ValueError(
                f"{self.chosen} experts cannot be chosen of the {reachable} in "
                f"{self.chosen_groups} groups: choose more groups or fewer experts"
            )


class Router(nn.Module):
    """Chooses experts for each token by itself."""

    reads_weights = ("score",)

    def __init__(self, width: int, config: RouterConfig) -> None:
        super().__init__()
        self.config = config
        self.score = nn.Linear(width, config.experts, bias=False)
        self.bias: Tensor | None
        self.register_buffer("bias", torch.zeros(config.experts) if config.balanced else None)

    def forward(self, tokens: Tensor) -> Routing:
        """Route `tokens` (N, D); in float32, since a rounding error could send one elsewhere."""
        logits = functional.linear(tokens.float(), self.score.weight.float())  # (N, E)
        scores = logits.sigmoid() if self.config.score == "sigmoid" else logits.softmax(-1)
        experts = self.choose(scores)
        gates = scores.gather(1, experts)
        if self.config.normalise:
            gates = gates / gates.sum(-1, keepdim=True)
        return Routing(experts, (gates * self.config.scale).to(tokens.dtype), scores)

    def choose(self, scores: Tensor) -> Tensor:
        """The experts (N, C) with the highest of `scores` (N, E), in the groups that may be."""
        config = self.config
        wanted = scores if self.bias is None else scores + self.bias
        if config.chosen_groups < config.groups:
            grouped = wanted.unflatten(1, (config.groups, -1))  # (N, G, E / G)
            merit = grouped.topk(config.group_best).values.sum(-1)  # (N, G)
            best = merit.topk(config.chosen_groups).indices
            out = torch.ones_like(merit, dtype=torch.bool).scatter(1, best, value=False)
            wanted = grouped.masked_fill(out[..., None], float("-inf")).flatten(1)
        return wanted.topk(config.chosen).indices

    def reset(self) -> None:
        """Forget what balancing has learnt."""
        if self.bias is not None:
            self.bias.zero_()

    @torch.no_grad()
    def balance(self, load: Tensor, speed: float = 0.001) -> None:
        """Move the bias by `speed`: up for experts with less than the mean of `load` (E,).

        To be called once a training step with the load of all its tokens (Wang et al. 2024).
        Raises ValueError if the config has no bias.
        """
        if self.bias is None:
            raise ValueError("this router has no balancing bias: train it with balance_loss")
        self.bias += speed * (load.float().mean() - load).sign().to(self.bias)


class Experts(nn.Module):
    """Gated feed-forward layers side by side, their matrices stacked."""

    def __init__(self, width: int, inner: int, experts: int, activation: Activation) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.gate = nn.Parameter(torch.empty(experts, inner, width))
        self.up = nn.Parameter(torch.empty(experts, inner, width))
        self.down = nn.Parameter(torch.empty(experts, width, inner))

    def forward(self, tokens: Tensor, counts: list[int]) -> Tensor:
        """Map `tokens` (N, D), the first `counts[0]` by expert 0 and so on, to (N, D)."""
        # Unbound once: the gradient of a matrix taken out by its number is as large as them all.
        matrices = zip(self.gate.unbind(), self.up.unbind(), self.down.unbind(), strict=True)
        results = []
        for part, (gate, up, down) in zip(tokens.split(counts), matrices, strict=True):
            if len(part):
                inner = self.activation(part @ gate.t()) * (part @ up.t())
                results.append(inner @ down.t())
        return torch.cat(results) if results else tokens

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Random weights; `narrow` is the deviation of what writes to the residual stream."""
        nn.init.normal_(self.gate, std=deviation, generator=generator)
        nn.init.normal_(self.up, std=deviation, generator=generator)
        nn.init.normal_(self.down, std=narrow, generator=generator)


@dataclass(frozen=True)
class MixtureConfig:
    """A router, its experts of inner width `width`, and what every token goes through besides."""

    router: RouterConfig
    width: int
    activation: Activation = "silu"
    shared: FeedForwardConfig | None = None

    def build(self, width: int) -> Mixture:
        """Make the module for a stream of `width` numbers."""
        return Mixture(width, self)


class Mixture(nn.Module):
    """The sum of the chosen experts, each weighted by its gate.

    Each token is routed by itself and none is dropped, so a result never depends on batch-mates.
    """

    def __init__(self, width: int, config: MixtureConfig) -> None:
        super().__init__()
        self.config = config
        self.router = Router(width, config.router)
        self.experts = Experts(width, config.width, config.router.experts, config.activation)
        self.shared = config.shared.build(width) if config.shared else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden` (B, T, D) to (B, T, D)."""
        tokens = hidden.flatten(0, -2)  # (N, D)
        routing = self.router(tokens)
        mixed = self.mix(tokens, routing).view_as(hidden)
        return mixed if self.shared is None else mixed + self.shared(hidden)

    def mix(self, tokens: Tensor, routing: Routing) -> Tensor:
        """Bring the tokens of each expert together, and the results back to their tokens."""
        chosen = routing.experts.shape[1]
        order = routing.experts.flatten().argsort(stable=True)  # (N * C,)
        counts = torch.bincount(routing.experts.flatten(), minlength=self.config.router.experts)
        results = self.experts(tokens[order // chosen], counts.tolist())
        weighted = results * routing.gates.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, order // chosen, weighted)


def idle_parameters(network: nn.Module) -> int:
    """How many numbers of `network` a token does not meet: those of experts it is not sent to."""
    idle = 0
    for module in network.modules():
        if isinstance(module, Mixture):
            router = module.config.router
            numbers = sum(matrix.numel() for matrix in module.experts.parameters())
            idle += numbers // router.experts * (router.experts - router.chosen)
    return idle
