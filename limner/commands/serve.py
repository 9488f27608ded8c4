"""`limner serve`: models behind the field's HTTP API."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.options import LoadingSettings
from limner.commands.terminal import progress_bar, remark

if TYPE_CHECKING:
    from limner.serving.opening import Loaded, Opening
    from limner.serving.server import Loading, Server, Serving


class Command(LoadingSettings):
    """Serve models to the field's clients over HTTP.

    The APIs are OpenAI's and Anthropic's: chat, completions, responses, messages, embeddings,
    ranking. Each MODEL is a name of the catalogue, a folder, a .gguf file, or OWNER/REPOSITORY of
    the hub, of any kind; NAME=MODEL says what clients call it.
    Listens on this machine only unless told otherwise; any other address needs API keys
    (`limner keys create NAME`). Ctrl-C and SIGTERM let answers under way end first.
    """

    positional: ClassVar[tuple[str, ...]] = ("model",)

    model: tuple[str, ...] = ()
    """models to serve, each MODEL or NAME=MODEL; further ones can be loaded while it runs"""
    name: str | None = None
    """what clients call the model, if it is only one; its name, or that of its file or folder, if
    not given"""
    embedder: tuple[str, ...] = ()
    """models to serve for their vectors, whatever else they can do"""
    adapter: tuple[str, ...] = ()
    """LoRA adapters of the model, each NAME=FOLDER; clients ask for one by its name"""
    model_folders: tuple[Path, ...] = ()
    """folders from which models and adapters may be loaded while it runs; adapters only, with
    --cluster"""
    host: str = "127.0.0.1"
    """the address to listen on"""
    port: int = Field(default=8000, ge=0, le=65535)
    """the port; 0 takes a free one"""
    require_keys: bool = False
    """ask for API keys on this machine too"""
    without_keys: bool = False
    """let everybody in who reaches an address that is not this machine's own"""
    waiting: int = Field(default=256, ge=0)
    """answers that may wait for their turn, a model; further requests get 429"""
    requests: int | None = Field(default=None, ge=1)
    """requests answered side by side; further ones get 503"""
    connections: int | None = Field(default=None, ge=2)
    """open connections; requests on further ones get 503"""
    body_bytes: int = Field(default=4_000_000, ge=1)
    """the largest body of a request"""
    body_seconds: float = Field(default=60, gt=0)
    """how long the body of a request may take to come"""
    answer_seconds: float | None = Field(default=None, gt=0)
    """how long the answers to a request may take, waiting included; then they end with an error"""
    drain_seconds: int = Field(default=30, ge=0)
    """how long answers under way may take when the server is told to stop, or to unload a model"""
    cluster: bool = False
    """run the models in replicas, in the Ray cluster that RAY_ADDRESS names or one started here"""
    replicas: int | None = Field(default=None, ge=1)
    """how many, with --cluster; 2 if not given"""
    replica_cpus: float | None = Field(default=None, gt=0)
    """processors a replica, with --cluster; an equal share of all if not given"""
    replica_gpus: float | None = Field(default=None, ge=0)
    """GPUs a replica, with --cluster; one if there are so many, if not given"""
    log: Literal["json", "text", "off"] = "json"
    """how each request is written to standard error"""
    log_texts: bool = False
    """write what was asked and answered too"""


def run(settings: Command) -> None:
    """Serve until told to stop."""
    try:
        from limner.serving.request_log import log_to_standard_error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"limner serve needs {error.name}: pip install 'limner[serve]' brings it"
        ) from None
    server = make_server(settings)
    log_to_standard_error()
    models = list(server.loading.models)
    names = [*models, *named_adapters(settings, models)]
    server.run(lambda address: remark(greeting(address, names)))


def make_server(settings: Command) -> Server:
    """The server that the settings ask for. Raises ValueError if they would be unsafe."""
    from limner.serving.application import Limits
    from limner.serving.opening import Opening
    from limner.serving.request_log import RequestLog
    from limner.serving.server import Loading, Server, Serving

    place = absolute if settings.cluster else str
    how = settings.how()
    if settings.draft is not None:
        how["draft"] = place(settings.draft)
    folders = tuple(Path(place(folder)) for folder in settings.model_folders)
    opening = Opening(**how, folders=folders)
    serving = Serving(
        host=settings.host,
        port=settings.port,
        require_keys=settings.require_keys,
        without_keys=settings.without_keys,
        drain_seconds=settings.drain_seconds,
        connections=settings.connections,
        log=RequestLog(settings.log, settings.log_texts),
        limits=Limits(
            body_bytes=settings.body_bytes,
            waiting=settings.waiting,
            body_seconds=settings.body_seconds,
            answer_seconds=settings.answer_seconds,
            unload_seconds=settings.drain_seconds,
            requests=settings.requests,
        ),
    )
    named = named_models(settings)
    found = named_adapters(settings, list(named))
    adapters = {name: Path(place(folder)) for name, folder in found.items()}
    models = {
        name: partial(
            load,
            opening,
            place(model),
            as_embedder=as_embedder,
            adapters={} if as_embedder else adapters,
        )
        for name, (model, as_embedder) in named.items()
    }
    loading = Loading(models, opening)
    return cluster_server(settings, loading, serving) or Server(loading, serving)


def absolute(word: str | Path) -> str:
    """A path as replicas find it, which may work in another folder; a name as it is."""
    path = Path(word).expanduser()
    return str(path.absolute() if path.exists() else word)


def cluster_server(settings: Command, loading: Loading, serving: Serving) -> Server | None:
    """The server of a cluster, if that is asked for.

    Raises ValueError for settings that mean nothing without one.
    """
    names = ("replicas", "replica_cpus", "replica_gpus")
    given = [name for name in names if getattr(settings, name) is not None]
    if not settings.cluster:
        if given:
            raise ValueError(f"{given[0]} is for a cluster: give --cluster too")
        return None
    from limner.serving.cluster import ClusterServer, Placement

    placement = Placement(settings.replicas or 2, settings.replica_cpus, settings.replica_gpus)
    return ClusterServer(loading, serving, placement=placement)


def named_models(settings: Command) -> dict[str, tuple[str, bool]]:
    """Models by what clients call them, and whether they are served for their vectors only.

    Raises ValueError if two have one name.
    """
    from limner.serving.opening import called

    if settings.name is not None and len(settings.model) != 1:
        raise ValueError(
            f"name is for one model, and {len(settings.model)} are given: write NAME=MODEL for each"
        )
    found: dict[str, tuple[str, bool]] = {}
    words = [(word, False) for word in settings.model] + [
        (word, True) for word in settings.embedder
    ]
    for word, as_embedder in words:
        before, separator, after = word.partition("=")
        model = after if separator else word
        name = before if separator else called(word)
        if settings.name is not None and not as_embedder:
            name = settings.name
        if name in found:
            raise ValueError(f"two models are called '{name}': write NAME=MODEL to tell them apart")
        found[name] = (model, as_embedder)
    return found


def named_adapters(settings: Command, taken: list[str]) -> dict[str, Path]:
    """The folders of adapters by what clients call them.

    Raises ValueError if a name is missing or taken, or it is not clear whose they are.
    """
    if settings.adapter and len(settings.model) != 1:
        raise ValueError(
            f"adapter is for one model, and {len(settings.model)} are given: load it while the "
            "server runs, with POST /v1/load_lora_adapter"
        )
    found: dict[str, Path] = {}
    for word in settings.adapter:
        name, separator, folder = word.partition("=")
        if not separator or not name or not folder:
            raise ValueError(f"'{word}' names no adapter: write NAME=FOLDER")
        if name in found or name in taken:
            raise ValueError(f"two models are called '{name}': give the adapter another name")
        found[name] = Path(folder)
    return found


def load(
    opening: Opening, model: str, *, as_embedder: bool, adapters: Mapping[str, Path]
) -> Loaded:
    """The model, with a progress bar and its own defaults: clients expect the API's temperature.

    Raises ValueError if adapters are given to a model that writes nothing.
    """
    from dataclasses import replace

    from limner.language_model import LanguageModel

    with progress_bar() as progress:
        shown = replace(opening, progress=progress)
        loaded = shown.open_embedder(model) if as_embedder else shown.open(model)
    for name, folder in adapters.items():
        if not isinstance(loaded, LanguageModel):
            raise ValueError(f"'{model}' writes no text, so it takes no adapter: leave adapter out")
        loaded.attach(name, folder)
    return loaded


def greeting(address: str, names: list[str]) -> str:
    """Where the server and its web page are, and a line to try it with."""
    verb = "are" if len(names) > 1 else "is"
    said = f"{', '.join(names) or 'no model'} {verb} ready at {address}/v1"
    if not names:
        return f"{said}: load one with POST {address}/v1/models/load\n"
    body = json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Hello!"}]})
    line = f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d"
    return f"{said}\n\n  In a browser: {address}\n\n  {line} {shlex.quote(body)}\n"
