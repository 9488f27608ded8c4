"""A text with blanks in, what may stand in them out.

T time, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import open_checkpoint
from limner.language_model.abilities import require
from limner.language_model.distribution import Distribution
from limner.language_model.loading import Progress, choose_device, choose_dtype
from limner.models.encoder import Encoder
from limner.tokenizers import Tokenizer


class MaskFiller:
    """An encoder with a masked head, and its tokenizer.

    Raises ValueError if it has no such head, naming what it can do, or no mask token.
    """

    def __init__(self, name: str, network: Encoder, tokenizer: Tokenizer) -> None:
        require("fill-mask", name, network)
        if tokenizer.mask_id is None:
            raise ValueError(
                f"the tokenizer of '{name}' has no mask token: it has no blanks to fill"
            )
        self.name, self.network, self.tokenizer = name, network, tokenizer

    @property
    def mask(self) -> str:
        """How a blank is written."""
        assert self.tokenizer.mask_id is not None
        return self.tokenizer.token(self.tokenizer.mask_id)

    @torch.inference_mode()
    def fill(self, text: str) -> list[Distribution]:
        """What may stand in each blank of `text`, in their order, the other blanks left open.

        Raises ValueError if there is no blank, or the text is longer than the model's context.
        """
        tokens = self.tokenizer.encode(text, parse_special=True)
        blanks = [place for place, token in enumerate(tokens) if token == self.tokenizer.mask_id]
        if not blanks:
            raise ValueError(f"the text has no blank: write {self.mask} where a word is missing")
        context = self.network.config.context
        if len(tokens) > context:
            raise ValueError(f"the text has {len(tokens)} tokens but '{self.name}' takes {context}")
        device = next(self.network.parameters()).device
        hidden = self.network(torch.tensor([tokens], device=device))  # (1, T, D)
        logits = self.network.head("masked")(hidden[:, blanks])[0]  # (blanks, V)
        return [Distribution(row, self.tokenizer) for row in logits]


def load_mask_filler(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> MaskFiller:
    """A mask filler by name or folder; arguments and errors are those of `limner.load`."""
    where = choose_device(device)
    report = progress or (lambda stage, done, total: None)
    checkpoint = open_checkpoint(resolve(str(name_or_path), partial(report, "downloading")))
    network = checkpoint.network(choose_dtype(dtype, where), where, partial(report, "loading"))
    require("fill-mask", str(name_or_path), network)
    assert isinstance(network, Encoder)
    return MaskFiller(str(name_or_path), network, checkpoint.tokenizer())
