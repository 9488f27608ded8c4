"""Which replica a request goes to: the one that has read the most of how it begins.

Ray's own router of this kind (`PrefixCacheAffinityRouter`) can be imported beside vLLM only, and
keeps its memory in a process of its own. Here all requests come through one process, so a
dictionary does.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

#: Bytes by which beginnings are compared; about a page of a replica's cache.
BLOCK = 128
#: Beginnings that are remembered, some hundred bytes each.
MOST = 100_000
#: Requests by which a replica may be ahead of the idlest before what it has read counts no more.
AHEAD = 8


class Beginnings:
    """Who has read which beginnings of texts, lately.

    Args:
        most: beginnings to remember; the longest unused are forgotten first.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._readers: OrderedDict[bytes, Any] = OrderedDict()

    def reader(self, text: str) -> Any:
        """Who has read the longest beginning of a text; None if nobody has read any."""
        found = None
        for key in _keys(text):
            if key not in self._readers:
                break
            self._readers.move_to_end(key)
            found = self._readers[key]
        return found

    def remember(self, text: str, reader: Any) -> None:
        """Somebody reads a text, and so all its beginnings."""
        for key in _keys(text):
            self._readers[key] = reader
            self._readers.move_to_end(key)
        while len(self._readers) > self.most:
            self._readers.popitem(last=False)


def _keys(text: str) -> Iterator[bytes]:
    """Names of a text's beginnings, each a block longer than the one before."""
    content, name = text.encode("utf-8", "surrogatepass"), hashlib.blake2b(digest_size=16)
    for start in range(0, len(content) - BLOCK + 1, BLOCK):
        name.update(content[start : start + BLOCK])
        yield name.digest()


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray's classes are untyped here
    """Sends a request to the replica that has read the most of it, unless that has more to do."""

    def initialize_state(self, **_: Any) -> None:
        """Called once by Ray."""
        self.beginnings = Beginnings()

    async def choose_replicas(
        self,
        candidate_replicas: Sequence[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The replicas to try, in turns; of those in one turn Ray takes the idlest."""
        anyone = random.sample(candidate_replicas, len(candidate_replicas))
        text = _text(pending_request)
        reader = self.beginnings.reader(text) if text else None
        known = [replica for replica in anyone if replica.replica_id == reader]
        least = min((self._load(replica) for replica in anyone), default=0)
        if known and self._load(known[0]) - least <= AHEAD:
            return [known, anyone]
        return [anyone]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Called by Ray when a replica has a request."""
        if text := _text(pending_request):
            self.beginnings.remember(text, replica_id)

    def _load(self, replica: RunningReplica) -> int:
        """Requests that a replica answers, as far as it is known."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def _text(request: PendingRequest | None) -> str:
    """What a request is routed by (`limner.serving.cluster_replica.Forwarded`)."""
    arguments = () if request is None else request.args
    return next((found for one in arguments if (found := getattr(one, "prompt", ""))), "")
