"""Models behind the API: loaded while the server already listens, found by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from limner.inference.admission import check_prompt, check_sampling, token_limit
from limner.language_model import Embedder, LanguageModel
from limner.serving.engine_thread import Answers, EngineThread, QueueFullError, Submission
from limner.serving.errors import ApiError
from limner.serving.metrics import ModelMetrics
from limner.serving.requests import Body
from limner.serving.token_scores import Score, score_prompt
from limner.tokenizers import IncrementalDecoder

Result = TypeVar("Result")

#: Seconds after which a client that was turned away may try again.
RETRY_AFTER = 1


class Served:
    """Something with a name in /v1/models; its requests are prepared one after another."""

    def __init__(self, name: str) -> None:
        self.name, self.created = name, int(time.time())
        # A tokenizer belongs to one thread at a time, and a long text must not hold up the others.
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="limner-prepare")

    async def prepare(self, body: Body, param: str, function: Callable[[], Result]) -> Result:
        """What a function makes of a request, off the asyncio thread.

        Raises ApiError that names the field, or `param` if the message does not begin with one.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._preparing, function)
        except ValueError as error:
            first = str(error).partition(" ")[0]
            named = first if first in type(body).model_fields else param
            raise ApiError(400, str(error), param=named, code="invalid_value") from None

    async def stop(self) -> None:
        """End its threads."""
        self._preparing.shutdown(cancel_futures=True)


class ServedModel(Served):
    """A language model and the thread that runs its engine."""

    def __init__(
        self, model: LanguageModel, *, name: str, most_waiting: int, metrics: ModelMetrics
    ) -> None:
        super().__init__(name)
        self.model, self.metrics = model, metrics
        self.thread = EngineThread(
            model.engine,
            partial(IncrementalDecoder, model.tokenizer),
            most_waiting=most_waiting,
            observer=metrics,
        )
        metrics.watch(lambda: self.thread.running, self._waiting)

    def _waiting(self) -> int:
        return max(0, self.thread.unfinished - self.thread.running)

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

    def submit(self, submissions: Sequence[Submission], prompt_tokens: int) -> Answers:
        """Queue checked submissions. Raises ApiError: 429 if the queue is full, 400 if too many."""
        try:
            answers = self.thread.submit(submissions)
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

    async def score(self, tokens: Sequence[int], count: int) -> list[Score]:
        """The scores of a prompt's tokens."""
        return await self.thread.call(partial(score_prompt, self.model.network, tokens, count))

    async def stop(self) -> None:
        """Cancel what is unfinished and end the threads."""
        await self.thread.stop()
        await super().stop()


class ServedEmbedder(Served):
    """A sentence encoder; texts are computed one request after another."""

    def __init__(self, embedder: Embedder, *, name: str) -> None:
        super().__init__(name)
        self.embedder = embedder


class Registry:
    """What is served, by name; `ready` when all that was asked for is loaded."""

    def __init__(self) -> None:
        self.served: dict[str, Served] = {}
        self.ready = False

    def model(self, name: str | None) -> ServedModel:
        """A language model; the only one if no name is given."""
        models = [served for served in self.served.values() if isinstance(served, ServedModel)]
        if name is None and len(models) == 1:
            return models[0]
        found = self.any(name or "")
        if not isinstance(found, ServedModel):
            raise ApiError(400, f"The model '{name}' does not generate text", param="model")
        return found

    def embedder(self, name: str) -> ServedEmbedder:
        """A sentence encoder."""
        found = self.any(name)
        if not isinstance(found, ServedEmbedder):
            raise ApiError(
                400,
                f"The model '{name}' makes no embeddings: start the server with an embedder",
                param="model",
            )
        return found

    def any(self, name: str) -> Served:
        """What has this name. Raises ApiError: 503 while loading, 404 if nothing has."""
        if not self.ready:
            raise ApiError(
                503, "the model is being loaded: try again soon", kind="server_error",
                code="not_ready", headers={"retry-after": str(RETRY_AFTER)},
            )  # fmt: skip
        if name not in self.served:
            names = ", ".join(self.served)
            raise ApiError(
                404, f"The model '{name}' does not exist: this server has {names}",
                param="model", code="model_not_found",
            )  # fmt: skip
        return self.served[name]

    async def stop(self) -> None:
        """Stop all."""
        self.ready = False
        for served in self.served.values():
            await served.stop()
