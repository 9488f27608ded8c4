"""A live server over a tiny random model, on a free port, in a thread."""

import json
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import openai
import pytest

import limner
from limner.serving.keys import KeyStore
from limner.serving.response_store import ResponseStore
from limner.serving.server import Loading, Server, Serving
from tests.docs.tiny_model import write_tiny_model
from tests.peft.adapters import write_random_adapter


@contextmanager
def running(server):
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.registry.ready:
        assert thread.is_alive(), server.failure
        time.sleep(0.01)
    try:
        yield server
    finally:
        server.uvicorn.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(scope="session")
def alone(tiny):
    """The same model in this process, to compare with."""
    return limner.load(tiny, context=512)


@pytest.fixture(scope="session")
def folders(tiny, tmp_path_factory):
    """Three adapters of the tiny model."""
    folder, model = tmp_path_factory.mktemp("adapters"), limner.load(tiny)
    for seed, name in enumerate(("poet", "clerk", "late"), 1):
        write_random_adapter(model, folder / name, seed)
    return folder


@pytest.fixture(scope="session")
def start(tiny, tmp_path_factory):
    """Start a server over the tiny model: `with start(port=0, ...) as server`."""

    def make(store=None, responses=None, **settings):
        folder = tmp_path_factory.mktemp("data")
        keys = store or KeyStore(folder / "keys.sqlite")
        kept = responses or ResponseStore(folder / "responses.sqlite")
        loading = Loading({"tiny": lambda: limner.load(tiny, context=512)})
        return running(Server(loading, Serving(port=0, **settings), keys, kept))

    return make


@pytest.fixture(scope="session")
def server(start):
    with start() as live:
        yield live


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as made:
        yield made


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


def ask(server, method, path, body=None, **headers):
    """Send a request as it is, and read the whole answer."""
    host, port = server.address.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=30)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": "application/json"} | given)
    response = connection.getresponse()
    reply = Reply(response.status, response.headers, response.read())
    connection.close()
    return reply


@pytest.fixture
def send(server):
    """Send a request to the shared server: `send("POST", "/tokenize", {...})`."""

    def to_server(method, path, body=None, **headers):
        return ask(server, method, path, body, **headers)

    return to_server


def until(happened):
    """Wait for something; whether it happened within five seconds."""
    for _ in range(500):
        if happened():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def idle(server):
    """Wait until no row is taken; fails if one stays so."""

    def wait():
        thread = server.registry.served["tiny"].thread
        free = until(lambda: not (thread.unfinished or thread.running or thread.engine.busy))
        assert free, f"{thread.running} rows are still taken, {thread.unfinished} open"

    return wait


@pytest.fixture
def break_step(server, monkeypatch):
    """Let one of the engine's next steps fail: the first, or that of this number."""

    def arm(number=1):
        runner = server.registry.served["tiny"].thread.engine.runner
        run, calls = runner.run, []

        def broken(work, *draw):
            calls.append(work)
            if len(calls) < number:
                return run(work, *draw)
            monkeypatch.undo()
            raise RuntimeError("out of memory")

        monkeypatch.setattr(runner, "run", broken)

    return arm
