"""The paged cache in 8 bits: a quarter of float32's memory for keys and values.

N tokens laid end to end, K key-value heads, W head width, P pages of S slots, n rows, p pages of
each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner import kernels
from limner.nn.cache import zeros_untouched
from limner.nn.paged import PagedCache, PagedStep

#: The largest code.
LARGEST = 127


class Int8PagedCache(PagedCache):
    """A paged cache of whole numbers from -127 to 127 with a scale for each token and head.

    A token's own keys and values are read back rounded too, so that numbers do not depend on how a
    text is cut into chunks. What a pass reads is made into floats again first, page by page: this
    saves memory, not time.
    """

    def _allocate(self) -> None:
        self.keys = [self._new(s.heads, s.key_width, torch.int8) for s in self.shapes]
        self.values = [self._new(s.heads, s.value_width, torch.int8) for s in self.shapes]
        # Scales (P, K, S), none where a layer keeps nothing.
        self.key_scales = [self._new_scales(s.heads) for s in self.shapes]
        self.value_scales = [self._new_scales(s.heads if s.value_width else 0) for s in self.shapes]
        self._copied: tuple[kernels.Places, Tensor, kernels.Places] | None = None

    def _new_scales(self, heads: int) -> Tensor:
        size = (1 + self.pages, heads, self.page_size)
        return zeros_untouched(size, torch.float32, self.device)

    @property
    def kept(self) -> list[Tensor]:
        """All that is kept, by page."""
        return [*self.keys, *self.values, *self.key_scales, *self.value_scales]

    def store(self, layer: int, key: Tensor, value: Tensor, places: kernels.Places) -> None:
        """Write `key`, `value` (N, K, W) to their places."""
        assert places.pages is not None
        page = places.pages[places.texts, places.positions // self.page_size].long()
        self.write(layer, page, places.positions % self.page_size, key, value)

    def write(self, layer: int, page: Tensor, slot: Tensor, key: Tensor, value: Tensor) -> None:
        """Write `key`, `value` (..., K, W) to slots `slot` (...) of pages `page` (...)."""
        self.keys[layer][page, :, slot], self.key_scales[layer][page, :, slot] = rounded(key)
        if self.shapes[layer].value_width:
            codes, scales = rounded(value)
            self.values[layer][page, :, slot], self.value_scales[layer][page, :, slot] = (
                codes,
                scales,
            )

    def read(self, layer: int, pages: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Copies of the keys and values, of `width`, in `pages` (n, p), as (n, K, p * S, W)."""
        keys, values = self._floats(layer, pages, width)  # (n, p, K, S, W)
        return keys.transpose(1, 2).flatten(2, 3), values.transpose(1, 2).flatten(2, 3)

    def lay_out(
        self, layer: int, width: int, step: PagedStep
    ) -> tuple[Tensor, Tensor, kernels.Places]:
        """Keys, values of `width`, and where they stand, as the kernels read them."""
        if self._copied is None or self._copied[0] is not step.places:
            self._copied = (step.places, *self._listed(step.places))
        _, pages, places = self._copied
        return *self._floats(layer, pages, width), places

    def _listed(self, places: kernels.Places) -> tuple[Tensor, kernels.Places]:
        """The pages (n * p) that a pass reads, and where its tokens stand in copies of them."""
        rows = places.texts.unique()  # (n,)
        each = int(places.positions.max()) // self.page_size + 1
        copies = torch.zeros(self.rows, each, dtype=torch.int32)
        copies[rows] = torch.arange(len(rows) * each, dtype=torch.int32).view(-1, each)
        assert places.pages is not None
        listed = places.pages[rows, :each].flatten().long()
        return listed, kernels.Places(places.texts, places.positions, copies)

    def _floats(self, layer: int, pages: Tensor, width: int) -> tuple[Tensor, Tensor]:
        keys = self._restored(self.keys[layer], self.key_scales[layer], pages)
        if not self.shapes[layer].value_width:
            return keys, keys[..., :width]
        return keys, self._restored(self.values[layer], self.value_scales[layer], pages)

    def _restored(self, codes: Tensor, scales: Tensor, pages: Tensor) -> Tensor:
        """Codes times their scales, for `pages` (...), as (..., K, S, W)."""
        return (codes[pages] * scales[pages][..., None]).to(self.dtype)


def rounded(heads: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (..., W) and scales (...) of `heads` (..., W): the largest number becomes 127."""
    scales = heads.float().abs().amax(-1) / LARGEST
    codes = heads.float() / scales.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    # What is not a number stays visible in the scale; its code is of no account.
    return codes.nan_to_num().round().clamp(-LARGEST, LARGEST).to(torch.int8), scales
