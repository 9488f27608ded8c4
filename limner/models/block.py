"""A block is two residual steps; the config chooses every part of it, layer by layer.

B batch, T time, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor, nn

from limner.nn.cache import CacheShape
from limner.nn.carried import CarriedShape
from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions
from limner.nn.state import State


class MixerConfig(Protocol):
    """Settings that can make a mixer: a module called with (hidden, positions, state)."""

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        ...


class FeedConfig(Protocol):
    """Settings that can make a module which maps each position by itself."""

    def build(self, width: int) -> nn.Module:
        """Make the module for a stream of `width` numbers."""
        ...


@dataclass(frozen=True)
class ResidualConfig:
    """Where a residual step normalises.

    `before` the branch (pre-norm), on the branch's `inside` result (with `before`: sandwich), and
    `after` the sum (post-norm). `scale` multiplies the branch. `skip_normed` adds the branch to its
    normalised input instead of the input (an option of BLOOM). Without `skip` the branch replaces
    its input (a classic recurrent network).
    """

    before: NormConfig | None = None
    inside: NormConfig | None = None
    after: NormConfig | None = None
    scale: float = 1.0
    skip_normed: bool = False
    skip: bool = True


@dataclass(frozen=True)
class BlockConfig:
    """One layer: a mixer, a feed-forward, and the residual steps around them.

    `parallel` feeds both from the block's input and adds both (GPT-NeoX); if `feed` has no norm
    `before` then, it reads what the mixer's made (GPT-J). A block without
    `feedforward` is its mixer alone (Mamba). `cross` looks at a source text between the two.
    `beside` mixes the block's input too, and what comes of it is added at the end (DeBERTa).
    """

    mixer: MixerConfig
    mix: ResidualConfig
    feedforward: FeedConfig | None = None
    feed: ResidualConfig = ResidualConfig()
    parallel: bool = False
    cross: MixerConfig | None = None
    cross_mix: ResidualConfig = ResidualConfig()
    beside: MixerConfig | None = None
    beside_mix: ResidualConfig = ResidualConfig()


class Residual(nn.Module):
    """hidden + branch(hidden), normalised where the config says."""

    def __init__(self, width: int, config: ResidualConfig) -> None:
        super().__init__()
        self.scale, self.skip_normed, self.skip = config.scale, config.skip_normed, config.skip
        self.before = config.before.build(width) if config.before else None
        self.inside = config.inside.build(width) if config.inside else None
        self.after = config.after.build(width) if config.after else None

    def branch(self, hidden: Tensor, through: Callable[[Tensor], Tensor]) -> Tensor:
        """What the step adds to `hidden` (B, T, D)."""
        result = through(hidden if self.before is None else self.before(hidden))
        result = result if self.inside is None else self.inside(result)
        return result if self.scale == 1.0 else result * self.scale

    def forward(self, hidden: Tensor, through: Callable[[Tensor], Tensor]) -> Tensor:
        """Add the branch to `hidden` (B, T, D)."""
        skipped = self.before(hidden) if self.before and self.skip_normed else hidden
        branch = self.branch(hidden, through)
        total = skipped + branch if self.skip else branch
        return total if self.after is None else self.after(total)


class Block(nn.Module):
    """Mix across tokens, then feed each token forward."""

    def __init__(self, width: int, layer: int, config: BlockConfig) -> None:
        super().__init__()
        self.parallel = config.parallel
        self.mixer = config.mixer.build(width, layer)
        self.mix = Residual(width, config.mix)
        self.cross = config.cross.build(width, layer) if config.cross else None
        self.cross_mix = Residual(width, config.cross_mix) if config.cross else None
        self.feedforward = config.feedforward.build(width) if config.feedforward else None
        self.feed = Residual(width, config.feed) if config.feedforward else None
        self.beside = config.beside.build(width, layer) if config.beside else None
        self.beside_mix = Residual(width, config.beside_mix) if config.beside else None

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Map `hidden` (B, T, D) to (B, T, D)."""
        result = self.steps(hidden, positions, state)
        if self.beside is None or self.beside_mix is None:
            return result
        beside = self.beside
        return self.beside_mix(result, lambda _: beside(hidden, positions, state))

    def steps(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """The residual steps, one after another or both at once."""

        def mixed(stream: Tensor) -> Tensor:
            return self.mixer(stream, positions, state)

        if self.parallel and self.feedforward is not None and self.feed is not None:
            fed = hidden if self.feed.before or not self.mix.before else self.mix.before(hidden)
            return self.mix(hidden, mixed) + self.feed.branch(fed, self.feedforward)
        hidden = self.mix(hidden, mixed)
        if self.cross is not None and self.cross_mix is not None:
            cross = self.cross
            hidden = self.cross_mix(hidden, lambda stream: cross(stream, positions, state))
        if self.feedforward is not None and self.feed is not None:
            hidden = self.feed(hidden, self.feedforward)
        return hidden

    @property
    def cache_shape(self) -> CacheShape | CarriedShape:
        """What a cache keeps of each token for this block, or carries from one to the next."""
        return cast("CacheShape | CarriedShape", self.mixer.cache_shape)
