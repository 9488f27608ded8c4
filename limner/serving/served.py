"""Models behind the API: loaded while the server already listens, found by name."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from limner.inference.admission import check_prompt, check_sampling, token_limit
from limner.language_model import Embedder, LanguageModel
from limner.language_model.cross_encoder import CrossEncoder
from limner.models.sentence import PoolingConfig, SentenceEncoder
from limner.peft import Adapter, Use, applied
from limner.serving.account import Account
from limner.serving.embeddings import mean_vectors
from limner.serving.engine_thread import Answers, EngineThread, Pieces, QueueFullError, Submission
from limner.serving.errors import SHOWN, ApiError
from limner.serving.metrics import AnswerMetrics, Metrics, ModelMetrics
from limner.serving.opening import Loaded
from limner.serving.requests import Body
from limner.serving.token_scores import Score, score_prompt
from limner.tokenizers import IncrementalDecoder

Result = TypeVar("Result")

#: Seconds after which a client that was turned away may try again.
RETRY_AFTER = 1

#: Seconds between two looks at whether a model that is to go still answers somebody.
LOOK = 0.02


class Served:
    """Something with a name in /v1/models; its requests are prepared one after another."""

    kind: ClassVar[str]
    parent: Served | None = None  # what it is an adapter of

    def __init__(
        self, name: str, longest: int, preparing: ThreadPoolExecutor | None = None
    ) -> None:
        self.name, self.longest, self.created = name, longest, int(time.time())
        self.closing = False
        self._under_way = 0
        # A tokenizer belongs to one thread at a time, and a long text must not hold up the others.
        self.preparing = preparing or ThreadPoolExecutor(1, thread_name_prefix="limner-prepare")

    async def prepare(self, body: Body, param: str, function: Callable[[], Result]) -> Result:
        """What a function makes of a request, off the asyncio thread.

        Raises ApiError that names the field, or `param` if the message does not begin with one,
        and ApiError (503) if the model is being unloaded.
        """
        try:
            return await self.off_thread(function)
        except ValueError as error:
            first = str(error).partition(" ")[0]
            named = first if first in type(body).model_fields else param
            raise ApiError(400, str(error), param=named, code="invalid_value") from None

    async def off_thread(self, function: Callable[[], Result]) -> Result:
        """What a function returns, computed off the asyncio thread, one after another.

        Raises ApiError (503) if the model is being unloaded.
        """
        self.check_open()
        loop = asyncio.get_running_loop()
        self._under_way += 1
        try:
            return await loop.run_in_executor(self.preparing, function)
        finally:
            self._under_way -= 1

    @property
    def busy(self) -> bool:
        """Whether somebody waits for it."""
        return self._under_way > 0

    def check_open(self) -> None:
        """Raise ApiError (503) if it takes no more requests."""
        if self.closing:
            raise ApiError(
                503, f"The model '{self.name}' is being unloaded", kind="server_error",
                code="unloading",
            )  # fmt: skip

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and wait so long at most for those under way."""
        self.closing = True
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:
            await asyncio.sleep(LOOK)

    async def stop(self) -> None:
        """End its threads, and what is unfinished with an error."""
        self.closing = True
        await asyncio.to_thread(self.preparing.shutdown)


class ServedModel(Served):
    """A language model and the thread that runs its engine."""

    kind = "generate"
    metrics: AnswerMetrics
    adapter: Adapter | None = None  # what changes the model for all its answers

    def __init__(
        self,
        model: LanguageModel,
        *,
        name: str,
        most_waiting: int,
        metrics: ModelMetrics,
        most_seconds: float | None = None,
    ) -> None:
        super().__init__(name, model.context)
        self.model, self.metrics = model, metrics
        self.thread = EngineThread(
            model.engine,
            partial(IncrementalDecoder, model.tokenizer),
            most_waiting=most_waiting,
            observer=metrics,
            most_seconds=most_seconds,
        )
        metrics.watch(lambda: self.thread.engine.statistics, self._waiting)

    def _waiting(self) -> int:
        return max(0, self.thread.unfinished - self.thread.running)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for it."""
        return super().busy or self.thread.unfinished > 0

    def check(self, submissions: Sequence[Submission], param: str) -> None:
        """Raise ApiError for what the engine would refuse; it says both numbers if too long."""
        limits = self.model.config
        for submission in submissions:
            check_prompt(submission.tokens, limits.vocabulary)
            check_sampling(submission.sampling, limits.vocabulary, has_decoder=True)
            try:
                token_limit(
                    submission.tokens, submission.sampling, limits.context, self.model.context
                )
            except ValueError as error:
                code = "context_length_exceeded"
                raise ApiError(400, str(error), param=param, code=code) from None

    def submit(
        self, submissions: Sequence[Submission], prompt_tokens: int, account: Account
    ) -> Answers:
        """Queue checked submissions, and charge them to an account.

        Raises ApiError: 429 if the queue is full or the account used up, 400 if too many, 503 if
        the model is being unloaded.
        """
        self.check_open()
        account.read(self.name, prompt_tokens)
        adapted = [replace(submission, adapter=self.adapter) for submission in submissions]
        try:
            answers = self.thread.submit(adapted, account.wrote, self.metrics)
        except QueueFullError:
            raise ApiError(
                429,
                f"the queue is full: {self.thread.unfinished} answers are under way or waiting",
                kind="rate_limit_error",
                code="queue_full",
                headers={"retry-after": str(RETRY_AFTER)},
            ) from None
        except ValueError as error:
            raise ApiError(400, str(error), param="n") from None
        self.metrics.prompt_tokens.inc(prompt_tokens)
        return answers

    @cached_property
    def embedder(self) -> Embedder:
        """The same network as an embedder: a text's vector is the mean of its tokens'."""
        network = SentenceEncoder(self.model.network, PoolingConfig(), ())
        return Embedder(self.name, network, self.model.tokenizer, self.longest)

    async def score(self, tokens: Sequence[int], count: int) -> list[Score]:
        """The scores of a prompt's tokens, computed while answers under way go on."""
        return await self._in_pieces(score_prompt(self.model.network, tokens, count))

    async def embed(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The vectors (number of texts, D) of texts, computed while answers under way go on."""
        return await self._in_pieces(mean_vectors(self.model.network, tokens))

    async def _in_pieces(self, pieces: Pieces[Result]) -> Result:
        self.check_open()
        self._under_way += 1
        try:
            return await self.thread.call_in_pieces(self._adapted(pieces))
        finally:
            self._under_way -= 1

    def _adapted(self, pieces: Pieces[Result]) -> Pieces[Result]:
        """The same pieces, each computed with the adapter, and nothing else between them."""
        while True:
            with applied(self.model.network, [Use(self.adapter)] if self.adapter else []):
                try:
                    next(pieces)
                except StopIteration as end:
                    result: Result = end.value
                    return result
            yield

    async def stop(self) -> None:
        """End its threads, and what is unfinished with an error."""
        await super().stop()
        await self.thread.stop("the model was unloaded, or the server stopped")


class ServedAdapter(ServedModel):
    """A language model with an adapter, under a name of its own.

    Model, engine and threads are its parent's, so answers with and without it share a batch.
    """

    def __init__(
        self, parent: ServedModel, adapter: Adapter, *, name: str, metrics: AnswerMetrics
    ) -> None:
        Served.__init__(self, name, parent.longest, parent.preparing)
        self.parent, self.adapter, self.metrics = parent, adapter, metrics
        self.model, self.thread = parent.model, parent.thread
        metrics.watch_running(lambda: self.thread.running_with(adapter))

    @property
    def busy(self) -> bool:
        """Whether a request is being prepared; answers under way go on without it."""
        return self._under_way > 0

    async def stop(self) -> None:
        """Take no more requests; the threads are its parent's."""
        self.closing = True


class ServedEmbedder(Served):
    """A sentence encoder; texts are computed one request after another."""

    kind = "embed"

    def __init__(self, embedder: Embedder, *, name: str) -> None:
        super().__init__(name, embedder.longest)
        self.embedder = embedder

    async def embed(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The vectors (number of texts, P) of texts given as token ids."""
        return await self.off_thread(partial(self.embedder.embed_tokens, tokens))


class ServedScorer(Served):
    """A cross-encoder; pairs are computed one request after another."""

    kind = "score"

    def __init__(self, scorer: CrossEncoder, *, name: str) -> None:
        super().__init__(name, scorer.longest)
        self.scorer = scorer


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
            names = ", ".join(self.served) or "no model"
            raise ApiError(
                404, f"The model '{name[:SHOWN]}' does not exist: this server has {names}",
                param="model", code="model_not_found",
            )  # fmt: skip
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


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
