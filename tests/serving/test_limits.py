"""What one key, one request and one connection may use."""

import json
import logging
import re
import socket
import threading
import time
from itertools import pairwise

import openai
import pytest

from limner.serving import token_scores
from limner.serving.application import Limits
from limner.serving.connections import PatientProtocol
from limner.serving.errors import ApiError
from limner.serving.keys import Key, KeyStore, Rights
from limner.serving.rates import Rates
from limner.serving.request_log import RequestLog
from tests.serving.conftest import ask

BODY = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 2, "ignore_eos": True}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def allowance(clock, requests=None, tokens=None):
    return Rates(clock).of(Key("id", "me", "", Rights(False, requests, tokens)))


def test_a_minutes_requests_flow_back_in_a_minute():
    clock = Clock()
    mine = allowance(clock, requests=4)
    for _ in range(4):
        mine.begin()
    with pytest.raises(ApiError) as caught:
        mine.begin()
    assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "15")
    clock.now = 15
    mine.begin()
    clock.now = 1000
    assert mine.headers()["x-ratelimit-remaining-requests"] == "4"


def test_tokens_written_may_overdraw_and_are_waited_for():
    clock = Clock()
    mine = allowance(clock, tokens=60)
    mine.read(50)
    mine.wrote(40)
    assert mine.headers()["x-ratelimit-remaining-tokens"] == "0"
    assert mine.headers()["x-ratelimit-reset-tokens"] == "90.000s"
    with pytest.raises(ApiError, match="60 tokens a minute") as caught:
        mine.begin()
    assert caught.value.headers["retry-after"] == "31"
    clock.now = 31
    mine.begin()
    with pytest.raises(ApiError, match="used up"):
        mine.read(2)
    with pytest.raises(ApiError, match="61 tokens, but its key may use 60") as caught:
        mine.read(61)
    assert caught.value.status == 400


def test_a_change_of_limits_begins_anew():
    rates, clock = Rates(), Clock()
    rates._clock = clock
    first = rates.of(Key("id", "me", "", Rights(False, 1, None)))
    assert rates.of(Key("id", "me", "", Rights(False, 1, None))) is first
    assert rates.of(Key("id", "me", "", Rights(False, 2, None))) is not first


def test_a_key_has_its_own_limits_and_is_told_of_them(start, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    few = store.create("few", Rights(requests_per_minute=2))
    short = store.create("short", Rights(tokens_per_minute=20))
    free = store.create("free")
    with start(store, require_keys=True) as server:

        def post(key, **fields):
            header = f"Bearer {key}"
            return ask(server, "POST", "/v1/completions", BODY | fields, Authorization=header)

        first = post(few)
        assert (first.status, first.headers["x-ratelimit-limit-requests"]) == (200, "2")
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert post(few).status == 200
        refused = post(few)
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert post(short, max_tokens=15).status == 200
        assert post(short).status == 429  # 2 are left, and 3 are to be read
        assert post(short, prompt=[5] * 21).status in (400, 429)
        assert post(free, max_tokens=100).status == 200
        assert "x-ratelimit-limit-requests" not in post(free).headers


def test_an_answer_that_takes_too_long_ends_with_an_error(start):
    with start(limits=Limits(answer_seconds=0.05)) as server:
        body = BODY | {"max_tokens": 500}
        reply = ask(server, "POST", "/v1/completions", body)
        assert (reply.status, reply.error["code"]) == (504, "timeout")
        stream = ask(server, "POST", "/v1/completions", body | {"stream": True}).body.decode()
        assert "0.05 seconds" in stream
        thread = server.registry.served["tiny"].thread
        while thread.unfinished:
            time.sleep(0.01)


def speak(server, text):
    """Say something on a bare socket, and return it."""
    host, port = server.address.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    made.sendall(text)
    return made


def hear(made):
    """All that is said until the connection is closed."""
    said = b""
    while piece := made.recv(10_000):
        said += piece
    return said


HEAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_does_not_come_is_not_waited_for(start):
    with start(limits=Limits(body_seconds=0.05)) as server:
        with speak(server, HEAD + b"Content-Length: 10\r\n\r\n{") as slow:
            reply = hear(slow)  # and it is closed
            assert reply.startswith(b"HTTP/1.1 408")
            assert b"0.05 seconds" in reply
        assert ask(server, "POST", "/tokenize", {"prompt": "a"}).status == 200


def test_nor_is_a_head(start, monkeypatch):
    monkeypatch.setattr(PatientProtocol, "head_seconds", 0.05)
    with start() as server:
        for said in (b"", HEAD):
            with speak(server, said) as silent:
                assert hear(silent) == b""
        body = b'{"prompt": "a"}'
        with speak(server, HEAD + b"Content-Length: 15\r\n\r\n") as slow:
            time.sleep(0.2)  # the head is there: the body has its own time
            slow.sendall(body)
            said = b""
            while not said.endswith(b"}"):
                said += slow.recv(1000)
            slow.sendall(HEAD)
            assert hear(slow) == b""


def test_more_connections_than_allowed_are_turned_away(start):
    with start(connections=3) as server:
        first, second = speak(server, HEAD), speak(server, HEAD)
        while len(server.uvicorn.server_state.connections) < 2:
            time.sleep(0.001)
        assert ask(server, "GET", "/health").status == 503
        first.close()
        second.close()
        while server.uvicorn.server_state.connections:
            time.sleep(0.001)
        assert ask(server, "GET", "/health").status == 200


def test_more_requests_than_allowed_are_turned_away(start):
    with start(limits=Limits(requests=1)) as server:
        endless = BODY | {"max_tokens": 500}
        first = threading.Thread(target=ask, args=(server, "POST", "/v1/completions", endless))
        first.start()
        while not server.registry.served["tiny"].thread.unfinished:
            time.sleep(0.001)
        reply = ask(server, "POST", "/v1/completions", BODY)
        assert (reply.status, reply.error["code"]) == (503, "overloaded")
        first.join()
        assert ask(server, "POST", "/v1/completions", BODY).status == 200


def test_the_log_tells_tokens_and_texts_only_if_asked(start, caplog):
    secret = BODY | {"prompt": "a great secret"}
    with (
        caplog.at_level(logging.INFO, "limner.serving.requests"),
        start(log=RequestLog("json", texts=True)) as server,
    ):
        reply = ask(server, "POST", "/v1/completions", secret)
        while not caplog.messages:
            time.sleep(0.001)
    record = json.loads(caplog.messages[-1])
    assert (record["model"], record["completion_tokens"]) == ("tiny", 2)
    assert record["first_token_seconds"] <= record["seconds"]
    assert json.loads(record["question"]) == secret
    assert json.loads(record["answer"]) == reply.json


def test_the_log_may_be_for_people_or_none(start, caplog):
    with caplog.at_level(logging.INFO, "limner.serving.requests"):
        with start(log=RequestLog("text")) as server:
            ask(server, "POST", "/v1/completions", BODY)
            while not caplog.messages:
                time.sleep(0.001)
        line = caplog.messages[-1]
        assert re.match(r"req_\w+ POST /v1/completions 200 [\d.]+ key=None model=tiny ", line)
        caplog.clear()
        with start(log=RequestLog("off")) as server:
            ask(server, "POST", "/v1/completions", BODY)
        assert not caplog.messages


def test_answers_go_on_while_a_prompt_is_scored(start, monkeypatch, alone):
    monkeypatch.setattr(token_scores, "CHUNK", 8)
    ids = alone.encode("the quick brown fox jumps over the lazy dog. " * 9)
    with start() as server:
        thread, happened = server.registry.served["tiny"].thread, list[str]()

        def noted(name, function):
            def call(*given):
                happened.append(name)
                return function(*given)

            return call

        monkeypatch.setattr(thread.engine, "step", noted("step", thread.engine.step))
        monkeypatch.setattr(token_scores, "_piece", noted("piece", token_scores._piece))
        url = f"{server.address}/v1"
        with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
            stream = client.completions.create(
                model="tiny", prompt="a", max_tokens=400, stream=True,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            next(iter(stream))
            scored = client.completions.create(
                model="tiny", prompt=ids, echo=True, logprobs=0, max_tokens=0
            )
            stream.close()
    places = [place for place, what in enumerate(happened) if what == "piece"]
    assert len(places) == -(-(len(ids) - 1) // 8)
    assert all(after - before > 1 for before, after in pairwise(places))
    logprobs = alone.logits(ids).log_softmax(-1)
    own = [logprobs[place, token].item() for place, token in enumerate(ids[1:])]
    told = scored.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs[1:] == pytest.approx(own, abs=1e-4)
