"""From a name or a path to a model of whichever kind it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limner.checkpoints import hub
from limner.checkpoints.catalogue import find, resolve
from limner.checkpoints.checkpoint import open_checkpoint
from limner.checkpoints.sentence import is_sentence_encoder
from limner.language_model import Embedder, LanguageModel, load, load_embedder
from limner.language_model.cross_encoder import CrossEncoder, load_cross_encoder, pair_labels
from limner.language_model.loading import Progress
from limner.models.decoder import DecoderConfig

Loaded = LanguageModel | Embedder | CrossEncoder


@dataclass(frozen=True)
class Opening:
    """How models are opened.

    Args:
        dtype: see `limner.load`.
        device: see `limner.load`.
        context, cache_bits, draft: see `limner.load`; of language models.
        weights, activation_bits: see `limner.load`; of language models.
        folders: models in these may be opened by their paths while the server runs.
        progress: see `limner.load`.
    """

    dtype: str = "auto"
    device: str = "auto"
    context: int | None = None
    cache_bits: int | None = None
    draft: str | None = None
    weights: str = "auto"
    activation_bits: Literal[8, 16] = 16
    folders: tuple[Path, ...] = ()
    progress: Progress | None = None

    def open(self, model: str) -> Loaded:
        """The model at a path or of a name: one that writes, makes vectors, or scores pairs.

        Raises what `limner.load` raises.
        """
        path = resolve(model)
        if is_sentence_encoder(path):
            return self.open_embedder(model)
        config = open_checkpoint(path).config
        if pair_labels(config) == 1:
            return load_cross_encoder(
                model, dtype=self.dtype, device=self.device, progress=self.progress
            )
        if isinstance(config, DecoderConfig):
            return load(
                model,
                dtype=self.dtype,
                device=self.device,
                context=self.context,
                cache_bits=self.cache_bits,
                draft=self.draft,
                weights=self.weights,
                activation_bits=self.activation_bits,
                progress=self.progress,
            )
        return self.open_embedder(model)

    def open_embedder(self, model: str) -> Embedder:
        """The model, for its vectors. Raises what `limner.load` raises."""
        return load_embedder(model, dtype=self.dtype, device=self.device, progress=self.progress)

    def check_request(self, model: str) -> None:
        """Raise ValueError if a request may not ask for this model.

        Names of the catalogue and of the hub are free; a path must lie in one of the folders that
        the server was started with.
        """
        path = Path(model).expanduser()
        named = find(model) is not None or hub.NAME.fullmatch(model) is not None
        if named and not (model.startswith((".", "~")) or path.exists()):
            return
        self._check_inside(path, f"model names '{model}'")

    def check_adapter(self, folder: str) -> None:
        """Raise ValueError if a request may not ask for the adapter in this folder.

        It must lie in one of the folders that the server was started with.
        """
        self._check_inside(Path(folder).expanduser(), f"lora_path names '{folder}'")

    def _check_inside(self, path: Path, what: str) -> None:
        inside = any(path.resolve().is_relative_to(folder.resolve()) for folder in self.folders)
        if not inside:
            raise ValueError(
                f"{what}, which is not in a folder that this server may load from: "
                "start it with model_folders=FOLDER"
            )


def called(model: str) -> str:
    """What clients call a model that was given no name."""
    return Path(model).name.removesuffix(".gguf") if Path(model).exists() else model
