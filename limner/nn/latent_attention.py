"""Multi-head latent attention (DeepSeek-V2, 2024): keys and values through a narrow waist.

B batch, T time, D width, H heads, L latent width, N width of a head's part without positions, R of
its rotated part, W of its value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limner.nn.cache import CacheShape
from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions, RotaryConfig, YaRN, magnitude, rotate
from limner.nn.scoring import Scoring
from limner.nn.state import State


@dataclass(frozen=True)
class LatentAttentionConfig:
    """Heads, the widths of their parts, and the waists.

    All heads' keys and values are made from one latent of `latent` numbers, beside one rotated key
    part of `rotary.width` that all heads share. `query_latent` None makes queries directly.
    `sharpness` multiplies the scores by YaRN's magnitude of that weight, squared (`mscale_all_dim`
    of DeepSeek's configs; 0: not). `bias` is on what leads into the waists and on the output.
    """

    heads: int
    latent: int
    plain_width: int
    value_width: int
    rotary: RotaryConfig
    norm: NormConfig
    query_latent: int | None = None
    sharpness: float = 0.0
    bias: bool = False

    def build(self, width: int, layer: int) -> LatentAttention:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return LatentAttention(width, layer, self)

    @property
    def scoring(self) -> Scoring:
        """How scores are made, for the state that makes them."""
        scale = 1 / math.sqrt(self.plain_width + self.rotary.width)
        if isinstance(self.rotary.scaling, YaRN) and self.sharpness:
            scale *= magnitude(self.rotary.scaling.factor, self.sharpness) ** 2
        return Scoring(scale)


class LatentAttention(nn.Module):
    """Attention whose cache holds latents, and whose heads then read them as they are.

    Where nothing is kept, keys and values are expanded from the latents, which costs least for many
    tokens at once. Where a state keeps them, the expanding matrices are absorbed into the query and
    the output instead, so that a cached step never expands its past: the two are equal.
    """

    reads_weights = ("key", "value")

    def __init__(self, width: int, layer: int, config: LatentAttentionConfig) -> None:
        super().__init__()
        self.layer, self.config, self.scoring = layer, config, config.scoring
        queries = config.heads * (config.plain_width + config.rotary.width)
        waist = config.query_latent
        self.query_down = nn.Linear(width, waist, config.bias) if waist else None
        self.query_norm = config.norm.build(waist) if waist else None
        self.query = nn.Linear(waist or width, queries, bias=False)
        self.down = nn.Linear(width, config.latent + config.rotary.width, config.bias)
        self.norm = config.norm.build(config.latent)
        self.key = nn.Linear(config.latent, config.heads * config.plain_width, bias=False)
        self.value = nn.Linear(config.latent, config.heads * config.value_width, bias=False)
        self.output = nn.Linear(config.heads * config.value_width, width, config.bias)

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what `state` lets it see, to (B, T, D)."""
        plain, turned = self.queries(hidden, positions)
        latent, shared = self.down(hidden).split(
            (self.config.latent, self.config.rotary.width), dim=-1
        )
        latent = self.norm(latent)[:, :, None]  # (B, T, 1, L)
        shared = self.place(shared[:, :, None], positions)  # (B, T, 1, R)
        attend = self.attend_absorbed if state.keeps else self.attend_expanded
        return self.output(attend(plain, turned, latent, shared, state).flatten(-2))

    def queries(self, hidden: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """The parts of each head's query: without positions (B, T, H, N), rotated (B, T, H, R)."""
        if self.query_down is not None and self.query_norm is not None:
            hidden = self.query_norm(self.query_down(hidden))
        heads = self.query(hidden).unflatten(-1, (self.config.heads, -1))
        plain, turned = heads.split((self.config.plain_width, self.config.rotary.width), dim=-1)
        return plain, self.place(turned, positions)

    def place(self, heads: Tensor, positions: Positions) -> Tensor:
        """Turn `heads` (B, T, H, R) to their positions."""
        rotary = self.config.rotary
        return rotate(heads, *positions.angles(rotary), rotary.interleaved)

    def attend_expanded(
        self, plain: Tensor, turned: Tensor, latent: Tensor, shared: Tensor, state: State
    ) -> Tensor:
        """Every head with its own keys and values, (B, T, H, W)."""
        keys = self.key(latent).view(plain.shape)
        keys = torch.cat((keys, shared.expand_as(turned)), -1)  # (B, T, H, N + R)
        values = self.value(latent).unflatten(-1, (self.config.heads, -1)).squeeze(2)
        query = torch.cat((plain, turned), -1)
        return state.attend(self.layer, query, keys, values, self.scoring)

    def attend_absorbed(
        self, plain: Tensor, turned: Tensor, latent: Tensor, shared: Tensor, state: State
    ) -> Tensor:
        """All heads on one key, the latent and the shared part, whose value is the latent."""
        heads = (self.config.heads, -1, self.config.latent)
        expand_key, expand_value = self.key.weight.view(heads), self.value.weight.view(heads)
        plain = torch.einsum("bthn,hnl->bthl", plain, expand_key)
        query = torch.cat((plain, turned), -1)  # (B, T, H, L + R)
        key = torch.cat((latent, shared), -1)  # (B, T, 1, L + R)
        mixed = state.attend(self.layer, query, key, latent, self.scoring)  # (B, T, H, L)
        return torch.einsum("bthl,hwl->bthw", mixed, expand_value)

    @property
    def cache_shape(self) -> CacheShape:
        """One key a token; its values are the key's first numbers, so they need no room."""
        return CacheShape(1, self.config.latent + self.config.rotary.width, 0)
