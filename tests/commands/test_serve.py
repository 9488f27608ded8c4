import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from limner import LanguageModel, load
from limner.commands import serve
from limner.commands.command_line import run_command
from limner.serving.keys import KeyStore
from tests.peft.adapters import write_random_adapter


def post(address, path, body):
    host, port = address.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = json.loads(connection.getresponse().read())
    connection.close()
    return reply


@contextmanager
def serving(tiny, data):
    """`limner serve` as a user starts it, and its address."""
    words = ["serve", str(tiny), "port=0", "--context", "512"]
    started = subprocess.Popen(
        [sys.executable, "-m", "limner", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LIMNER_DATA": str(data)},
    )
    assert started.stderr is not None
    greeting = started.stderr.readline()
    address = re.fullmatch(r"tiny is ready at (http://127\.0\.0\.1:\d+)/v1\n", greeting)
    assert address, greeting + started.stderr.read()
    try:
        yield started, address[1]
    finally:
        started.kill()
        started.stderr.close()
        started.wait()


@pytest.fixture
def process(tiny, tmp_path):
    with serving(tiny, tmp_path) as running:
        yield running


def get(address, path):
    host, port = address.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", path)
    reply = json.loads(connection.getresponse().read())
    connection.close()
    return reply


def test_what_was_stored_outlives_a_kill(tiny, tmp_path, limner, monkeypatch):
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    key = limner("keys", "create", "me").out.strip()
    body = {"model": "tiny", "input": "the", "max_output_tokens": 3}
    with serving(tiny, tmp_path) as (started, address):
        made = [post(address, "/v1/responses", body) for _ in range(3)]
        started.send_signal(signal.SIGKILL)
        started.wait()
    with serving(tiny, tmp_path) as (_, address):
        for response in made:
            assert get(address, f"/v1/responses/{response['id']}") == response
        follows = post(address, "/v1/responses", body | {"previous_response_id": made[0]["id"]})
        assert follows["usage"]["input_tokens"] > made[0]["usage"]["input_tokens"]
    found = KeyStore(tmp_path / "keys.sqlite").find(key)
    assert found is not None
    assert found.name == "me"


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
    assert started.wait() == 0
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {"/v1/completions", "/metrics"} == {line["path"] for line in lines}


def test_models_have_the_names_they_are_given(tiny, monkeypatch):
    made: list[serve.Command] = []
    monkeypatch.setattr(serve, "run", made.append)
    monkeypatch.chdir(tiny.parent)
    words = [
        "tiny.gguf",
        "small=tiny.gguf",
        "other=owner/name",
        "port=0",
        "--embedder",
        "v=tiny.gguf",
    ]
    assert run_command("serve", words) == 0
    assert serve.named_models(made[0]) == {
        "tiny": ("tiny.gguf", False),
        "small": ("tiny.gguf", False),
        "other": ("owner/name", False),
        "v": ("tiny.gguf", True),
    }
    assert made[0].port == 0


def test_names_must_tell_models_apart(refused, tiny):
    assert "two models are called 'tiny'" in refused("serve", tiny, tiny)
    assert "name is for one model" in refused("serve", tiny, "b=c", "name=x")
    assert "did you mean 'port'" in refused("serve", tiny, "prot=8000")


def test_adapters_are_loaded_with_their_model(tiny, tmp_path):
    folder = write_random_adapter(load(tiny), tmp_path / "poet")
    settings = serve.Command(model=(str(tiny),), adapter=(f"poet={folder}",))
    (model,) = (opened() for opened in serve.make_server(settings).loading.models.values())
    assert isinstance(model, LanguageModel)
    assert list(model.adapters) == ["poet"]


def test_adapters_need_names_and_one_model(refused, tiny, tmp_path):
    assert "write NAME=FOLDER" in refused("serve", tiny, "--adapter", tmp_path)
    assert "two models are called 'tiny'" in refused("serve", tiny, "--adapter", "tiny=x")
    assert "adapter is for one model, and 2 are given" in refused(
        "serve", tiny, f"b={tiny}", "--adapter", "poet=x"
    )
    assert "no adapter at" in refused("serve", tiny, "--adapter", "poet=x", "port=0")


def test_the_network_needs_keys(refused, tiny):
    assert "limner keys create NAME" in refused("serve", tiny, "host=0.0.0.0")
    assert "contradict" in refused("serve", tiny, "--require-keys", "--without-keys")


def test_settings_of_a_cluster_need_one(refused, tiny):
    assert "replicas is for a cluster: give --cluster too" in refused("serve", tiny, "replicas=3")
    assert "replica_gpus is for" in refused("serve", tiny, "replica_gpus=1")


def test_a_cluster_without_ray_says_how_to_get_it(refused, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused("serve", tiny, "--cluster", "port=0")
    assert "pip install 'limner[cluster]'" in said


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
    limner("keys", "create", "desk", "requests_per_minute=3", "tokens_per_minute=9", "--admin")
    assert "desk  admin  3 requests a minute  9 tokens a minute" in limner("keys", "list").out
    limner("keys", "revoke", "desk")
    assert limner("keys", "list").out == ""
    assert "no key named 'laptop'" in refused("keys", "revoke", "laptop")
    assert "which key" in refused("keys", "create")
