"""What is served, by name: loaded while the server already listens, and unloaded while it runs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable

import torch

from limner.language_model import Embedder, LanguageModel
from limner.serving.errors import SHOWN, ApiError
from limner.serving.metrics import Metrics
from limner.serving.opening import Loaded
from limner.serving.served import (
    RETRY_AFTER,
    Served,
    ServedAdapter,
    ServedEmbedder,
    ServedModel,
    ServedScorer,
)


class Registry:
    """What is served, by name; `ready` when all that was asked for is loaded.

    Args:
        metrics: where measurements go.
        most_waiting: answers of one model that may wait for a row.
        most_seconds: how long a request's answers may take; None: for ever.
    """

    def __init__(
        self, metrics: Metrics, *, most_waiting: int = 256, most_seconds: float | None = None
    ) -> None:
        self.metrics, self.most_waiting, self.most_seconds = metrics, most_waiting, most_seconds
        self.served: dict[str, Served] = {}
        self.ready = False

    def add(self, name: str, loaded: Loaded) -> Served:
        """Serve what was loaded, from now on."""
        assert name not in self.served
        if isinstance(loaded, LanguageModel):
            self.served[name] = served = ServedModel(
                loaded,
                name=name,
                most_waiting=self.most_waiting,
                metrics=self.metrics.of(name),
                most_seconds=self.most_seconds,
            )
            for adapter in loaded.adapters:
                self.add_adapter(served, adapter)
        elif isinstance(loaded, Embedder):
            self.served[name] = ServedEmbedder(loaded, name=name)
        else:
            self.served[name] = ServedScorer(loaded, name=name)
        return self.served[name]

    def add_adapter(self, parent: ServedModel, name: str) -> Served:
        """Serve an adapter that is attached to a model, from now on."""
        assert name not in self.served
        adapter = parent.model.adapters[name]
        metrics = self.metrics.of_adapter(name)
        self.served[name] = ServedAdapter(parent, adapter, name=name, metrics=metrics)
        return self.served[name]

    async def remove(self, name: str, seconds: float) -> None:
        """Serve it no more: let requests under way end for so long, and free its memory.

        A model's adapters go with it.

        Raises ApiError if there is no such model.
        """
        served = self.any(name)
        served.check_open()
        served.closing = True
        for adapter in [one.name for one in self.served.values() if one.parent is served]:
            await self.remove(adapter, seconds)
        await served.drain(seconds)
        del self.served[name]
        await served.stop()
        if isinstance(served, ServedAdapter):
            served.model.detach(name)
            self.metrics.forget_adapter(name)
        elif isinstance(served, ServedModel):
            self.metrics.forget(name)
        del served
        await asyncio.to_thread(free_memory)

    def model(self, name: str | None) -> ServedModel:
        """A language model; the only one if no name is given."""
        models = [served for served in self.served.values() if isinstance(served, ServedModel)]
        if name is None and len(models := [one for one in models if one.parent is None]) == 1:
            return models[0]
        found = self.any(name or "")
        if not isinstance(found, ServedModel):
            raise ApiError(400, f"The model '{name}' does not generate text", param="model")
        return found

    def embedder(self, name: str) -> ServedEmbedder | ServedModel:
        """What makes vectors of texts."""
        found = self.any(name)
        if not isinstance(found, ServedEmbedder | ServedModel):
            raise ApiError(
                400,
                f"The model '{name}' makes no embeddings: it scores pairs of texts",
                param="model",
            )
        return found

    def ranker(self, name: str) -> ServedEmbedder | ServedScorer:
        """What can say how well two texts fit."""
        found = self.any(name)
        if not isinstance(found, ServedEmbedder | ServedScorer):
            raise ApiError(
                400,
                f"The model '{name}' scores no texts: that takes a sentence encoder or a "
                "cross-encoder",
                param="model",
            )
        return found

    def any(self, name: str) -> Served:
        """What has this name. Raises ApiError: 503 while loading, 404 if nothing has."""
        self.check_ready()
        if name not in self.served:
            raise unknown_model(name, self.served)
        return self.served[name]

    def check_ready(self) -> None:
        """Raise ApiError (503) while models are being loaded."""
        if not self.ready:
            raise ApiError(
                503, "the model is being loaded: try again soon", kind="server_error",
                code="not_ready", headers={"retry-after": str(RETRY_AFTER)},
            )  # fmt: skip

    async def stop(self) -> None:
        """Stop all."""
        self.ready = False
        for served in self.served.values():
            await served.stop()


def unknown_model(name: str, known: Iterable[str]) -> ApiError:
    """Nothing has this name."""
    names = ", ".join(known) or "no model"
    return ApiError(
        404, f"The model '{name[:SHOWN]}' does not exist: this server has {names}",
        param="model", code="model_not_found",
    )  # fmt: skip


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
