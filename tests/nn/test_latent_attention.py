"""Latent attention: the cache holds latents, and reading them as they are changes nothing."""

import torch

from limner.models.counting import on_meta
from limner.models.decoder import Decoder
from limner.models.presets import preset
from limner.nn.cache import DenseCache
from limner.nn.latent_attention import LatentAttention, LatentAttentionConfig
from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions, RotaryConfig
from limner.nn.state import Documents

WIDTH = 20


def layer() -> LatentAttention:
    """Latent attention with random weights."""
    config = LatentAttentionConfig(
        heads=3,
        latent=7,
        plain_width=5,
        value_width=4,
        rotary=RotaryConfig(6, interleaved=True),
        norm=NormConfig(),
        query_latent=9,
    )
    torch.manual_seed(0)
    return config.build(WIDTH, layer=0)


@torch.no_grad()
def test_the_absorbed_form_equals_the_expanded_form():
    mixer, hidden = layer(), torch.randn(2, 11, WIDTH)
    positions = Positions(torch.arange(11).expand(2, 11))
    cache = DenseCache([mixer.cache_shape], rows=2, capacity=16)
    expanded = mixer(hidden, positions, Documents())
    absorbed = mixer(hidden, positions, cache.begin(2, 11))
    torch.testing.assert_close(absorbed, expanded)


@torch.no_grad()
def test_a_cache_holds_one_latent_and_one_rotated_part_a_token():
    mixer = layer()
    cache = DenseCache([mixer.cache_shape], rows=1, capacity=8)
    assert cache.keys[0].shape == (1, 1, 8, 7 + 6)
    assert cache.values[0].numel() == 0


def test_a_token_of_deepseek_v3_takes_35136_values():
    network = on_meta(preset("deepseek-v3"))
    assert isinstance(network, Decoder)
    with torch.device("meta"):
        cache = network.new_cache(rows=1, capacity=1)
    each = sum(kept.numel() for kept in (*cache.keys, *cache.values))
    assert each == (512 + 64) * 61 == 35_136
