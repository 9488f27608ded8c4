"""How much the holder of a key may ask for, a minute.

Each limit is a bucket (the token bucket of network engineering): it holds what may be used at once,
and fills again steadily, so that a minute's worth flows back in a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from limner.serving.errors import ApiError
from limner.serving.keys import Key

MINUTE = 60.0

Clock = Callable[[], float]


class Bucket:
    """What is left of a limit. It can be overdrawn by what is known only afterwards."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit, self._clock = limit, clock
        self._left, self._seen = float(limit), clock()

    @property
    def left(self) -> float:
        """What may be used now."""
        now = self._clock()
        filled = self._left + (now - self._seen) * self.limit / MINUTE
        self._left, self._seen = min(filled, self.limit), now
        return self._left

    def take(self, amount: int) -> None:
        """Use some, there or not."""
        self._left = self.left - amount

    def seconds_until(self, amount: float) -> float:
        """How long it takes until so much is there."""
        return max(0.0, (amount - self.left) * MINUTE / self.limit)


@dataclass
class Allowance:
    """The buckets of one key."""

    requests: Bucket | None
    tokens: Bucket | None

    def begin(self) -> None:
        """Count a request. Raises ApiError (429) if there may be none now."""
        if self.requests is not None:
            self._require(self.requests, "requests", 1)
        if self.tokens is not None and self.tokens.left <= 0:
            self._refuse(self.tokens, "tokens", 1)
        if self.requests is not None:
            self.requests.take(1)

    def read(self, tokens: int) -> None:
        """Count the tokens of a prompt. Raises ApiError: 429, or 400 for more than a minute's."""
        if self.tokens is None:
            return
        if tokens > self.tokens.limit:
            raise ApiError(
                400,
                f"the request has {tokens} tokens, but its key may use {self.tokens.limit} a "
                "minute: shorten it",
                code="tokens_per_minute",
            )
        self._require(self.tokens, "tokens", tokens)
        self.tokens.take(tokens)

    def wrote(self, tokens: int) -> None:
        """Count tokens of an answer; how many there will be nobody knew before."""
        if self.tokens is not None:
            self.tokens.take(tokens)

    def headers(self) -> dict[str, str]:
        """What is left, as OpenAI's clients read it."""
        told = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
                told[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.left)))
                told[f"x-ratelimit-reset-{name}"] = f"{bucket.seconds_until(bucket.limit):.3f}s"
        return told

    def _require(self, bucket: Bucket, name: str, amount: int) -> None:
        if bucket.left < amount:
            self._refuse(bucket, name, amount)

    def _refuse(self, bucket: Bucket, name: str, amount: int) -> None:
        seconds = math.ceil(bucket.seconds_until(amount))
        raise ApiError(
            429,
            f"the key's limit of {bucket.limit} {name} a minute is used up: try again in "
            f"{seconds} seconds",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            headers={"retry-after": str(seconds)} | self.headers(),
        )


class Rates:
    """The allowances of all keys, in this process; a key whose limits were changed starts anew."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[Key, Allowance]] = {}

    def of(self, key: Key) -> Allowance:
        """That of one key."""
        kept = self._known.get(key.id)
        if kept is None or kept[0] != key:
            kept = self._known[key.id] = (key, self._new(key))
        return kept[1]

    def _new(self, key: Key) -> Allowance:
        requests, tokens = key.rights.requests_per_minute, key.rights.tokens_per_minute
        return Allowance(
            Bucket(requests, self._clock) if requests else None,
            Bucket(tokens, self._clock) if tokens else None,
        )
