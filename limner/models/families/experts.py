"""What families with experts have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.models.translation import Translation, stacked
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import MixtureConfig


def experts_in_layer(
    place: str, names: Mapping[str, str], layer: int, config: MixtureConfig
) -> Iterator[Translation]:
    """The matrices of all experts of a layer, which stand one by one under `place`.experts."""
    for theirs, ours in names.items():
        yield stacked(
            f"{place.format(layer)}.experts.{{}}.{theirs}.weight",
            f"blocks.{layer}.feedforward.experts.{ours}",
            config.router.experts,
        )


def without_experts(config: DecoderConfig) -> DecoderConfig:
    """The config as if every layer were dense, for what families of dense layers write."""
    feeds = [block.feedforward for block in config.blocks]
    dense = next((feed for feed in feeds if isinstance(feed, FeedForwardConfig)), None)
    return replace(config, blocks=tuple(_dense(block, dense) for block in config.blocks))


def _dense(block: BlockConfig, dense: FeedForwardConfig | None) -> BlockConfig:
    mixture = block.feedforward
    if not isinstance(mixture, MixtureConfig):
        return block
    return replace(block, feedforward=dense or FeedForwardConfig(mixture.width, mixture.activation))
