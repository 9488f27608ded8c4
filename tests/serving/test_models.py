"""Several models at once, which come and go while the server runs."""

import gc
import threading
import time
import weakref

import pytest

import limner
from limner.language_model import Embedder
from limner.models.sentence import NormalizeConfig, PoolingConfig, SentenceEncoder
from limner.serving.application import Limits
from limner.serving.keys import KeyStore, Rights
from limner.serving.opening import Opening
from limner.serving.server import Loading, Server, Serving
from tests.serving.conftest import ask, running

BODY = {"prompt": "the", "max_tokens": 2, "ignore_eos": True, "seed": 1}


def embedder(alone):
    network = SentenceEncoder(alone.network, PoolingConfig(), (NormalizeConfig(),))
    return Embedder("vectors", network, alone.tokenizer, 64)


@pytest.fixture
def several(tiny, alone, tmp_path):
    """Start a server with two language models and an embedder."""

    def start(store=None, **settings):
        loading = Loading(
            {
                "one": lambda: limner.load(tiny, context=64),
                "two": lambda: limner.load(tiny, context=128),
                "vectors": lambda: embedder(alone),
            },
            Opening(context=96, folders=(tiny.parent,)),
        )
        keys = store or KeyStore(tmp_path / "none.sqlite")
        return running(Server(loading, Serving(port=0, **settings), keys))

    return start


def names(server):
    return [model["id"] for model in ask(server, "GET", "/v1/models").json["data"]]


def complete(server, model, **fields):
    return ask(server, "POST", "/v1/completions", BODY | {"model": model} | fields)


def test_models_are_served_side_by_side_and_come_and_go(several, tiny):
    with several() as server:
        assert names(server) == ["one", "two", "vectors"]
        assert complete(server, "one").json["choices"] == complete(server, "two").json["choices"]
        reply = ask(server, "POST", "/v1/models/load", {"model": str(tiny), "name": "three"})
        assert (reply.json["id"], reply.json["max_model_len"]) == ("three", 96)
        assert names(server) == ["one", "two", "vectors", "three"]
        assert complete(server, "three").status == 200
        again = ask(server, "POST", "/v1/models/load", {"model": str(tiny), "name": "three"})
        assert again.status == 409
        assert ask(server, "DELETE", "/v1/models/one").json == {
            "id": "one", "object": "model", "deleted": True,
        }  # fmt: skip
        assert names(server) == ["two", "vectors", "three"]
        assert complete(server, "one").status == 404
        assert complete(server, "two").status == 200
        metrics = ask(server, "GET", "/metrics").body.decode()
        assert 'limner_answers_running{model="two"}' in metrics
        assert 'limner_answers_running{model="one"}' not in metrics


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_unloaded_leaves_memory(several):
    with several() as server:
        assert complete(server, "one").status == 200
        network = weakref.ref(server.registry.served["one"].model.network)
        cache = weakref.ref(server.registry.served["one"].thread.engine.scheduler.holdings.cache)
        assert ask(server, "DELETE", "/v1/models/one").status == 200
        gc.collect()
        assert network() is None
        assert cache() is None


@pytest.mark.parametrize(("seconds", "status"), [(30, 200), (0, 500)])
def test_an_answer_under_way_ends_or_is_told_why_not(several, seconds, status):
    with several(limits=Limits(unload_seconds=seconds)) as server:
        replies = []
        asking = threading.Thread(
            target=lambda: replies.append(complete(server, "two", max_tokens=120))
        )
        asking.start()
        while not server.registry.served["two"].thread.running:
            time.sleep(0.001)
        assert ask(server, "DELETE", "/v1/models/two").status == 200
        asking.join()
        assert replies[0].status == status
        if status == 200:
            assert replies[0].json["usage"]["completion_tokens"] == 120
        else:
            assert "unloaded" in replies[0].error["message"]


@pytest.mark.parametrize(
    ("model", "words"),
    [("/etc/passwd", "model_folders"), ("../x", "model_folders"), ("", "at least 1")],
)
def test_requests_open_no_other_files(several, model, words):
    with several() as server:
        reply = ask(server, "POST", "/v1/models/load", {"model": model})
        assert (reply.status, reply.error["param"]) == (400, "model")
        assert words in reply.error["message"]


def test_a_model_that_is_not_there_is_an_error_and_nothing_else(several, tiny):
    with several() as server:
        reply = ask(server, "POST", "/v1/models/load", {"model": str(tiny.parent / "none.gguf")})
        assert (reply.status, reply.error["param"]) == (400, "model")
        assert complete(server, "one").status == 200


def test_only_an_administrators_key_changes_what_is_served(several, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    plain, admin = store.create("plain"), store.create("boss", Rights(admin=True))
    with several(store, require_keys=True) as server:
        refused = ask(server, "DELETE", "/v1/models/one", Authorization=f"Bearer {plain}")
        assert (refused.status, refused.error["code"]) == (403, "not_an_administrator")
        done = ask(server, "DELETE", "/v1/models/one", Authorization=f"Bearer {admin}")
        assert done.status == 200
