"""Models behind the API, each with its threads: what a request is prepared and answered by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import ClassVar, TypeVar

from torch import Tensor

from limner.inference.admission import check_prompt, check_sampling, token_limit
from limner.language_model import Embedder, LanguageModel
from limner.language_model.cross_encoder import CrossEncoder
from limner.models.sentence import PoolingConfig, SentenceEncoder
from limner.peft import Adapter, Use, applied
from limner.serving.account import Account
from limner.serving.embeddings import mean_vectors
from limner.serving.engine_thread import Answers, EngineThread, Pieces, QueueFullError, Submission
from limner.serving.errors import ApiError
from limner.serving.metrics import AnswerMetrics, ModelMetrics
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
