"""The paged cache in 8 bits: a quarter of float32's memory for keys and values.

N tokens laid end to end, K key-value heads, W head width, P pages of S slots, n rows, p pages of
each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner import kernels
from limner.kernels.attention import put
from limner.nn.cache import zeros_untouched
from limner.nn.paged import PagedCache, head_by_head
from limner.nn.scoring import Scoring


class Int8PagedCache(PagedCache):
    """A paged cache of whole numbers from -127 to 127 with a scale for each token and head.

    A token's own keys and values are read back rounded too, so that numbers do not depend on how a
    text is cut into chunks. Where the kernels do not attend, what a pass reads is made into floats
    again first: that saves memory, not time.
    """

    def _allocate(self) -> None:
        self.keys = [self._new_keys(shape, torch.int8) for shape in self.shapes]
        self.values = [self._new(s.heads, s.value_width, torch.int8) for s in self.shapes]
        # Scales (P, K, S), none where a layer keeps nothing.
        self.key_scales = [self._new_scales(s.heads) for s in self.shapes]
        self.value_scales = [self._new_scales(s.heads if s.value_width else 0) for s in self.shapes]

    def _new_scales(self, heads: int) -> Tensor:
        size = (1 + self.pages, heads, self.page_size)
        return zeros_untouched(size, torch.float32, self.device)

    @property
    def kept(self) -> list[Tensor]:
        """All that is kept, by page."""
        return [*self.keys, *self.values, *self.key_scales, *self.value_scales]

    def takes_kernels(self, layer: int, *tensors: Tensor) -> bool:
        """Whether the kernels can attend in `layer` with these queries, keys or values.

        They take values with scales of their own, not those that are a part of their keys.
        """
        return bool(self.shapes[layer].value_width) and super().takes_kernels(layer, *tensors)

    def store(self, layer: int, key: Tensor, value: Tensor, places: kernels.Places) -> None:
        """Write `key`, `value` (N, K, W) to their places, by the kernels."""
        kernels.store_int8(key, self.keys[layer], self.key_scales[layer], places)
        kernels.store_int8(value, self.values[layer], self.value_scales[layer], places)

    def mix(
        self, layer: int, query: Tensor, width: int, scoring: Scoring, places: kernels.Places
    ) -> Tensor:
        """Mix values for `query` (N, H, W), by the kernels."""
        keys, values = self.keys[layer], self.values[layer]
        scales = self.key_scales[layer], self.value_scales[layer]
        how = scoring.scale, scoring.window, scoring.softcap
        return kernels.attend_int8(query, keys, scales[0], values, scales[1], places, *how)

    def write(self, layer: int, page: Tensor, slot: Tensor, key: Tensor, value: Tensor) -> None:
        """Write `key`, `value` (..., K, W) to slots `slot` (...) of pages `page` (...)."""
        kept = [(key, self.keys[layer], self.key_scales[layer])]
        if self.shapes[layer].value_width:
            kept.append((value, self.values[layer], self.value_scales[layer]))
        for heads, codes, scales in kept:
            rounded, scales[page, :, slot] = kernels.round_heads(heads.float())
            put(rounded, codes, page, slot)

    def keys_of(self, layer: int, pages: Tensor) -> Tensor:
        """Copies of the keys in `pages` (n, p), as (n, K, p, S, W)."""
        scales = head_by_head(self.key_scales[layer], pages)
        return self._floats(super().keys_of(layer, pages), scales)

    def values_of(self, layer: int, pages: Tensor) -> Tensor:
        """Copies of the values in `pages` (n, p), as (n, K, p, S, W)."""
        scales = head_by_head(self.value_scales[layer], pages)
        return self._floats(super().values_of(layer, pages), scales)

    def _floats(self, codes: Tensor, scales: Tensor) -> Tensor:
        return (codes * scales[..., None]).to(self.dtype)
