"""Many clients, some of which go away at any moment: nothing is lost, mixed or left taken."""

import json
import random
import socket
import threading
import time

import pytest

from tests.serving.conftest import ask, until

BODY = {"model": "tiny", "max_tokens": 24, "ignore_eos": True, "temperature": 1}


def question(number):
    return BODY | {"prompt": [5 + number % 7] * (1 + number % 40), "seed": number}


def leave(server, number, seconds):
    """Ask for a stream, and go away in the middle of it."""
    host, port = server.address.removeprefix("http://").split(":")
    content = json.dumps(question(number) | {"stream": number % 2 == 0, "n": 2}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as made:
        made.sendall(head.encode() + content)
        time.sleep(seconds)


def test_clients_killed_at_random_leave_nothing_taken_and_disturb_nobody(server, idle):
    drawn = random.Random(0)
    expected = [ask(server, "POST", "/v1/completions", question(n)).json for n in range(5)]
    got: dict[int, list[str]] = {n: [] for n in range(5)}

    def stay(number):
        for _ in range(2):
            reply = ask(server, "POST", "/v1/completions", question(number)).json
            got[number].append(reply["choices"][0]["text"])

    staying = [threading.Thread(target=stay, args=(number,)) for number in range(5)]
    leaving = [
        threading.Thread(target=leave, args=(server, number, drawn.random() / 5))
        for number in range(20)
    ]
    threads = staying + leaving
    drawn.shuffle(threads)
    for thread in threads:
        thread.start()
        time.sleep(drawn.random() / 50)
    for thread in threads:
        thread.join()
    for number, texts in got.items():
        assert texts == [expected[number]["choices"][0]["text"]] * 2
    idle()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_a_client_that_leaves_before_the_first_token_is_no_failure(
    server, idle, monkeypatch, caplog, path, stream
):
    thread = server.registry.served["tiny"].thread
    run, cancel = thread.engine.runner.run, thread._cancel
    held, gone = threading.Event(), threading.Event()

    def slow(*work):
        assert held.wait(20)
        return run(*work)

    def cancelled(answers):
        cancel(answers)
        gone.set()

    def ended():
        line = f'path="{path}",status="{200 if stream else 499}"}}'
        lines = ask(server, "GET", "/metrics").body.decode().splitlines()
        return [one for one in lines if one.startswith("limner_requests_total") and line in one]

    before = ended()
    monkeypatch.setattr(thread.engine.runner, "run", slow)
    first = threading.Thread(target=ask, args=(server, "POST", "/v1/completions", question(1)))
    first.start()
    assert until(lambda: thread.running)
    monkeypatch.setattr(thread, "_cancel", cancelled)
    said = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 9}
    body = said if path == "/v1/messages" else {"input": "a"}
    content = json.dumps(body | {"model": "tiny", "stream": stream}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as made:
        made.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        assert until(lambda: thread.unfinished == 2)
    assert gone.wait(20)
    held.set()
    first.join()
    idle()
    assert until(lambda: ended() != before)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
