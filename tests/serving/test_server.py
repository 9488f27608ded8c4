import json
import logging
import threading
import time

import openai
import pytest

import limner
from limner.serving.application import Limits
from limner.serving.keys import KeyStore
from limner.serving.server import Loading, Server, Serving
from tests.serving.conftest import ask

BODY = {"model": "tiny", "prompt": "the", "max_tokens": 2}


def refused_server(tmp_path, **settings):
    Server(Loading({}), Serving(**settings), KeyStore(tmp_path / "keys.sqlite"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
def test_the_network_is_not_served_without_keys(tmp_path, host):
    with pytest.raises(ValueError, match="limner keys create"):
        refused_server(tmp_path, host=host)
    Server(Loading({}), Serving(host=host, without_keys=True), KeyStore(tmp_path / "k"))
    store = KeyStore(tmp_path / "keys.sqlite")
    store.create("me")
    Server(Loading({}), Serving(host=host), store)


def test_keys_are_asked_for_and_revoked_at_once(start, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.create("me")
    with start(store, require_keys=True) as server:
        url = f"{server.address}/v1"
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["tiny"]
            store.revoke("me")
            with pytest.raises(openai.AuthenticationError) as caught:
                client.models.list()
            assert caught.value.code == "invalid_api_key"
        assert ask(server, "POST", "/v1/completions", BODY).status == 401
        assert ask(server, "GET", "/metrics").status == 401
        assert ask(server, "GET", "/health").status == 200


def test_a_full_queue_is_429_and_says_when_to_come_back(start):
    with start(limits=Limits(waiting=0)) as server:
        thread = server.registry.served["tiny"].thread
        rows = thread.engine.scheduler.rows
        endless = {**BODY, "max_tokens": 500, "ignore_eos": True, "n": rows}
        first = threading.Thread(target=ask, args=(server, "POST", "/v1/completions", endless))
        first.start()
        while not thread.unfinished:
            time.sleep(0.001)
        reply = ask(server, "POST", "/v1/completions", BODY)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        first.join()
        assert ask(server, "POST", "/v1/completions", BODY).status == 200
        reply = ask(server, "POST", "/v1/completions", BODY | {"n": rows + 1})
        assert (reply.status, reply.error["param"]) == (400, "n")


def test_a_body_that_is_too_large_is_413(start):
    with start(limits=Limits(body_bytes=1000)) as server:
        reply = ask(server, "POST", "/v1/completions", BODY | {"prompt": "x" * 2000})
        assert reply.status == 413
        assert "1000" in reply.error["message"]
        assert ask(server, "POST", "/v1/completions", BODY).status == 200


def test_another_sites_name_for_this_machine_is_not_answered(send):
    assert send("GET", "/v1/models", Host="evil.example").status == 421
    assert send("GET", "/v1/models", Host="localhost:1234").status == 200


def test_requests_are_logged_without_their_text(send, caplog):
    with caplog.at_level(logging.INFO, "limner.serving.requests"):
        reply = send("POST", "/v1/completions", BODY | {"prompt": "a great secret"})
        own = reply.headers["x-request-id"]
        while not (written := [line for line in caplog.messages if own in line]):
            time.sleep(0.001)
    (record,) = map(json.loads, written)
    assert (record["path"], record["status"]) == ("/v1/completions", 200)
    assert "secret" not in caplog.text


def test_metrics_count_tokens_and_time(start):
    with start() as server:
        ask(
            server,
            "POST",
            "/v1/completions",
            BODY | {"prompt": [5, 6, 7], "ignore_eos": True, "max_tokens": 5},
        )
        ask(server, "GET", "/no/such/path")
        lines = ask(server, "GET", "/metrics").body.decode().splitlines()
    for line in (
        'limner_generated_tokens_total{model="tiny"} 5.0',
        'limner_prompt_tokens_total{model="tiny"} 3.0',
        'limner_time_to_first_token_seconds_count{model="tiny"} 1.0',
        'limner_time_between_tokens_seconds_count{model="tiny"} 4.0',
        'limner_answers_running{model="tiny"} 0.0',
        'limner_answers_waiting{model="tiny"} 0.0',
        'limner_cache_pages{model="tiny",state="used"} 0.0',
        'limner_requests_total{model="tiny",path="/v1/completions",status="200"} 1.0',
        'limner_requests_total{model="",path="other",status="404"} 1.0',
    ):
        assert line in lines


def test_it_is_ready_when_the_model_is(tiny, tmp_path):
    may_load = threading.Event()

    def load():
        may_load.wait()
        return limner.load(tiny, context=64)

    server = Server(Loading({"tiny": load}), Serving(port=0), KeyStore(tmp_path / "keys.sqlite"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.uvicorn.started:
        time.sleep(0.001)
    assert ask(server, "GET", "/health").status == 200
    assert ask(server, "GET", "/ready").status == 503
    reply = ask(server, "POST", "/v1/completions", BODY)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    may_load.set()
    while not server.registry.ready:
        time.sleep(0.001)
    assert ask(server, "GET", "/ready").status == 200
    assert ask(server, "POST", "/v1/completions", BODY).status == 200
    server.uvicorn.should_exit = True
    thread.join()


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path):
    loading = Loading({"none": lambda: limner.load(tmp_path / "none")})
    server = Server(loading, Serving(port=0), KeyStore(tmp_path / "keys.sqlite"))
    with pytest.raises(FileNotFoundError):
        server.run()


def test_a_port_that_is_taken_is_an_error(server, tmp_path, tiny):
    port = int(server.address.rpartition(":")[2])
    second = Server(
        Loading({"tiny": lambda: limner.load(tiny, context=64)}),
        Serving(port=port),
        KeyStore(tmp_path / "keys.sqlite"),
    )
    with pytest.raises(OSError, match=f"port {port}"):
        second.run()


def test_a_stop_lets_answers_under_way_end(start):
    with start() as server:
        replies = []
        body = {**BODY, "max_tokens": 300, "ignore_eos": True}
        asking = threading.Thread(
            target=lambda: replies.append(ask(server, "POST", "/v1/completions", body))
        )
        asking.start()
        while not server.registry.served["tiny"].thread.unfinished:
            time.sleep(0.001)
        server.uvicorn.should_exit = True
        asking.join()
    assert replies[0].json["usage"]["completion_tokens"] == 300


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_description_of_the_api_is_whole(send):
    description = send("GET", "/openapi.json").json
    assert "/v1/chat/completions" in description["paths"]
    assert "422" not in json.dumps(description["paths"])
    for reference in set(references(description)):
        place = description
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    messages = description["components"]["schemas"]["ChatRequest"]["properties"]["messages"]
    assert messages["minItems"] == 1
