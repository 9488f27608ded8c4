import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection

import pytest


def post(address, path, body):
    host, port = address.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = json.loads(connection.getresponse().read())
    connection.close()
    return reply


@pytest.fixture
def process(tiny, tmp_path):
    """`limner serve` as a user starts it, and its address."""
    words = ["serve", str(tiny), "port=0", "--context", "512"]
    started = subprocess.Popen(
        [sys.executable, "-m", "limner", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert started.stderr is not None
    greeting = started.stderr.readline()
    address = re.fullmatch(r"tiny is ready at (http://127\.0\.0\.1:\d+)/v1\n", greeting)
    assert address, greeting + started.stderr.read()
    yield started, address[1]
    started.kill()
    started.stderr.close()
    started.wait()


def test_sigterm_lets_an_answer_under_way_end(process):
    started, address = process
    replies = []
    body = {"model": "tiny", "prompt": "the", "max_tokens": 400, "ignore_eos": True}
    asking = threading.Thread(target=lambda: replies.append(post(address, "/v1/completions", body)))
    asking.start()
    running = 'limner_answers_running{model="tiny"} 1.0'
    host, port = address.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    text = ""
    while running not in text:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    connection.close()
    started.send_signal(signal.SIGTERM)
    asking.join()
    assert replies[0]["usage"]["completion_tokens"] == 400
    log = started.stderr.read()
    assert started.wait() == -signal.SIGTERM
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {"/v1/completions", "/metrics"} == {line["path"] for line in lines}


def test_the_network_needs_keys(refused, tiny):
    assert "limner keys create NAME" in refused("serve", tiny, "host=0.0.0.0")
    assert "contradict" in refused("serve", tiny, "--require-keys", "--without-keys")


def test_a_model_that_is_not_there_is_one_line(refused, tmp_path):
    assert "nothing" in refused("serve", tmp_path / "nothing", "port=0")


def test_keys_are_made_listed_and_revoked(limner, refused):
    made = limner("keys", "create", "laptop")
    assert re.fullmatch(r"limner-[0-9a-f]{12}-[\w-]{43}\n", made.out)
    assert "only time" in made.err
    listed = limner("keys", "list").out
    assert "laptop" in listed
    assert made.out.strip() not in listed
    assert limner("keys", "revoke", "laptop").code == 0
    assert limner("keys", "list").out == ""
    assert "no key named 'laptop'" in refused("keys", "revoke", "laptop")
    assert "which key" in refused("keys", "create")
