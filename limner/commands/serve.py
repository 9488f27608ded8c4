"""`limner serve`: a model behind the field's HTTP API."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from limner.commands.options import ModelSettings
from limner.commands.terminal import progress_bar, remark

if TYPE_CHECKING:
    from limner.language_model import LanguageModel
    from limner.serving.server import Server


class Command(ModelSettings):
    """Serve a model to the field's clients over HTTP.

    The API is OpenAI's: chat, completions, embeddings.
    Listens on this machine only unless told otherwise; any other address needs API keys
    (`limner keys create NAME`). Ctrl-C and SIGTERM let answers under way end first.
    """

    positional: ClassVar[tuple[str, ...]] = ("model",)

    name: str | None = None
    """what clients call the model; if not given its name, or that of its file or folder"""
    embedder: str | None = None
    """a sentence encoder to serve beside it, at /v1/embeddings"""
    host: str = "127.0.0.1"
    """the address to listen on"""
    port: int = Field(default=8000, ge=0, le=65535)
    """the port; 0 takes a free one"""
    require_keys: bool = False
    """ask for API keys on this machine too"""
    without_keys: bool = False
    """let everybody in who reaches an address that is not this machine's own"""
    waiting: int = Field(default=256, ge=0)
    """answers that may wait for their turn; further requests get 429"""
    body_bytes: int = Field(default=4_000_000, ge=1)
    """the largest body of a request"""
    drain_seconds: int = Field(default=30, ge=0)
    """how long answers under way may take when the server is told to stop"""


def run(settings: Command) -> None:
    """Serve until told to stop."""
    try:
        from limner.serving.server import log_to_standard_error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"limner serve needs {error.name}: pip install 'limner[serve]' brings it"
        ) from None
    server = make_server(settings)
    log_to_standard_error()
    server.run(lambda address: remark(greeting(address, called(settings.model, settings.name))))


def make_server(settings: Command) -> Server:
    """The server that the settings ask for. Raises ValueError if they would be unsafe."""
    from limner.language_model import load_embedder
    from limner.serving.application import Limits
    from limner.serving.server import Loading, Server, Serving

    embedders = {}
    if settings.embedder is not None:
        load = partial(
            load_embedder, settings.embedder, dtype=settings.dtype, device=settings.device
        )
        embedders[called(settings.embedder)] = load
    loading = Loading(
        {called(settings.model, settings.name): partial(load_model, settings)}, embedders
    )
    serving = Serving(
        host=settings.host,
        port=settings.port,
        require_keys=settings.require_keys,
        without_keys=settings.without_keys,
        drain_seconds=settings.drain_seconds,
        limits=Limits(body_bytes=settings.body_bytes, waiting=settings.waiting),
    )
    return Server(loading, serving)


def load_model(settings: Command) -> LanguageModel:
    """The model with its own defaults: clients expect the API's temperature, not a command's."""
    import limner

    with progress_bar() as progress:
        return limner.load(
            settings.model,
            dtype=settings.dtype,
            device=settings.device,
            context=settings.context,
            progress=progress,
        )


def called(model: str, name: str | None = None) -> str:
    """What clients call a model."""
    if name is not None:
        return name
    return Path(model).name.removesuffix(".gguf") if Path(model).exists() else model


def greeting(address: str, name: str) -> str:
    """Where the server is, and a line to try it with."""
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello!"}]})
    line = f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d"
    return f"{name} is ready at {address}/v1\n\n  {line} {shlex.quote(body)}\n"
