"""Fetching a large file so that an interruption costs nothing: resumed, retried, checked."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from limner.checkpoints.disk import explain_full_disk
from limner.checkpoints.network import (
    DELAYS,
    DownloadError,
    RefusedError,
    host_of,
    open_url,
    persist,
)

log = logging.getLogger(__name__)

CHUNK = 1 << 18
RANGE_NOT_SATISFIABLE = 416

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes in all."""


def fetch(
    address: str,
    path: Path,
    sha256: str,
    size: int,
    progress: Progress | None = None,
    delays: Sequence[float] = DELAYS,
) -> None:
    """Fetch a file of known size and checksum, going on from what an earlier try left at `path`.

    An interrupt or a kill leaves at `path` what has arrived, to be resumed by the next call; on
    return the file there is whole and checked.

    Raises:
        DownloadError: the host cannot be reached, refuses, or serves another file.
        OSError: the disk is full.
    """
    transfer = _Transfer(address, path, size, progress)
    resumed = transfer.done > 0
    transfer.run(delays)
    if transfer.digest() != sha256 and resumed:
        log.info("%s: the parts do not fit together; fetching it anew", path.name)
        transfer.restart()
        transfer.run(delays)
    if transfer.digest() != sha256:
        found = transfer.digest()
        transfer.restart()
        raise DownloadError(
            f"{host_of(address)} served a wrong {path.name} (its sha256 is {found}, expected "
            f"{sha256}): it was deleted; try again, or set PIP_INDEX_URL to another package index"
        )


class _Transfer:
    """A file on its way, and how much of it is here."""

    def __init__(self, address: str, path: Path, size: int, progress: Progress | None) -> None:
        self.address = address
        self.path = path
        self.size = size
        self.progress = progress or (lambda done, total: None)
        # The server's mark for the version that the part on disk was taken from.
        self.mark = path.with_name(path.name + ".version")
        self.done = path.stat().st_size if path.exists() else 0
        self.furthest = self.done
        if self.done > size:
            self.restart()

    def restart(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)
        self.done = 0

    def digest(self) -> str:
        """The sha256 of what has arrived."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def run(self, delays: Sequence[float]) -> None:
        """Receive until the file has its size."""
        if self.done < self.size:
            persist(self._receive, self.address, delays, self._progressed)
        self.mark.unlink(missing_ok=True)

    def _progressed(self) -> bool:
        further = self.done > self.furthest
        self.furthest = max(self.done, self.furthest)
        return further

    def _receive(self) -> None:
        """One connection's worth. Raises ConnectionError if it ends early."""
        try:
            response = open_url(self.address, self._range_headers())
        except RefusedError as error:
            if error.code != RANGE_NOT_SATISFIABLE:
                raise
            self.restart()
            raise ConnectionError(str(error)) from None
        with response:
            self._place(response)
            self._append(response)
        if self.done < self.size:
            raise ConnectionError(f"the connection ended after {self.done} of {self.size} bytes")

    def _range_headers(self) -> dict[str, str]:
        if not self.done:
            return {}
        headers = {"Range": f"bytes={self.done}-"}
        if self.mark.exists():
            headers["If-Range"] = self.mark.read_text(encoding="utf-8")
        return headers

    def _place(self, response: Any) -> None:
        """Find out where the response starts, and make the part on disk end there."""
        expected = f"bytes {self.done}-"
        honoured = response.headers.get("Content-Range", "").startswith(expected)
        if not (response.status == 206 and honoured):
            self.restart()
        self._check_size(response.headers.get("Content-Length", ""))
        etag = response.headers.get("ETag", "W/")
        version = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
        if version:
            self.mark.write_text(version, encoding="utf-8")

    def _check_size(self, length: str) -> None:
        if length.isdecimal() and self.done + int(length) != self.size:
            raise DownloadError(
                f"{host_of(self.address)} serves a {self.path.name} of {self.done + int(length)} "
                f"bytes, not {self.size}: set PIP_INDEX_URL to another package index"
            )

    def _append(self, response: IO[bytes]) -> None:
        left = self.size - self.done
        with (
            explain_full_disk(self.path.parent, left, self.path.name),
            self.path.open("ab") as file,
        ):
            # One byte more than expected is enough to make the checksum wrong.
            while chunk := response.read(min(CHUNK, self.size + 1 - self.done)):
                file.write(chunk)
                self.done += len(chunk)
                self.progress(min(self.done, self.size), self.size)
