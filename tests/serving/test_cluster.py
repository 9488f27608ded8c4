"""Two replicas behind one address, in a Ray cluster on this machine."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import openai
import pytest

from limner import LanguageModel
from limner.commands import serve
from limner.nn.paged import PAGE_SIZE
from limner.serving.administration import LoadAdapterRequest
from limner.serving.application import Limits
from limner.serving.keys import KeyStore, Rights
from limner.serving.opening import Opening
from limner.serving.response_store import ResponseStore, Stored
from limner.serving.server import Loading, Serving
from tests.serving.conftest import ask
from tests.serving.test_adapters import expected, text_of

pytest.importorskip("ray", reason="Ray is not installed: pip install 'limner[cluster]'")

from limner.serving.cluster import ClusterServer, Placement, shares
from limner.serving.cluster_measurements import merged
from limner.serving.cluster_replica import Attached, Replica
from limner.serving.cluster_requests import beginning

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, about its use of pydantic
    from limner.serving.cluster_routing import Beginnings

SLOW = [
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, in its threads too
]
LONG = "over the lazy fox jumps the quick dog. " * 10


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return KeyStore(tmp_path_factory.mktemp("keys") / "keys.sqlite")


@pytest.fixture(scope="module")
def loading(tiny, folders):
    """A model with two adapters."""
    opening = Opening(context=512, folders=(folders,))
    adapters = {name: folders / name for name in ("poet", "clerk")}
    load = partial(serve.load, opening, str(tiny), as_embedder=False, adapters=adapters)
    return Loading({"tiny": load}, opening)


@pytest.fixture(scope="module")
def cluster(loading, keys, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_DATA", str(tmp_path_factory.mktemp("data")))
        keys.create("free")
        responses = ResponseStore(tmp_path_factory.mktemp("front") / "responses.sqlite")
        serving = Serving(port=0, require_keys=True)
        placement = Placement(replicas=2, cpus=0.5)
        server = ClusterServer(loading, serving, keys, responses, placement)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.registry.ready:
            assert thread.is_alive(), server.failure
            time.sleep(0.1)
        yield server
        server.uvicorn.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(cluster, keys):
    key = keys.create("client")
    with openai.OpenAI(base_url=f"{cluster.address}/v1", api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def change(cluster, keys):
    """Load or unload an adapter: `change("load", lora_name="late", ...)`."""
    key = keys.create("boss", Rights(admin=True))

    def sent(verb, **body):
        path = f"/v1/{verb}_lora_adapter"
        return ask(cluster, "POST", path, body, authorization=f"Bearer {key}")

    return sent


@pytest.fixture(scope="module")
def measured(cluster, keys):
    """Lines of /metrics that begin so."""
    key = keys.create("prometheus")

    def lines(name):
        reply = ask(cluster, "GET", "/metrics", authorization=f"Bearer {key}")
        return [line for line in reply.body.decode().splitlines() if line.startswith(name)]

    return lines


class TestTwoReplicas:
    pytestmark = SLOW

    def test_the_openai_client_gets_the_models_answers(self, client, alone):
        options = {"max_tokens": 12, "temperature": 1, "seed": 5}
        expected = alone.generate("the quick", **options).text
        asked = {"model": "tiny", "prompt": "the quick"} | options
        for _ in range(6):  # now of one replica, now of the other
            assert client.completions.create(**asked).choices[0].text == expected
        chunks = list(client.completions.create(stream=True, **asked))
        assert "".join(chunk.choices[0].text for chunk in chunks) == expected
        question = [{"role": "user", "content": "fox"}]
        reply = client.chat.completions.create(model="tiny", messages=question, **options)
        assert reply.choices[0].message.content == alone.chat(question, **options).text
        vectors = client.embeddings.create(model="tiny", input=["a", "fox"])
        assert len(vectors.data) == 2

    def test_texts_that_begin_alike_meet_in_one_replica(self, client):
        found = [
            client.completions.create(model="tiny", prompt=LONG + end, max_tokens=1)
            for end in ("a", "the", "fox", "dog")
        ]
        cached = [reply.usage.prompt_tokens_details.cached_tokens for reply in found]
        assert cached[0] == 0
        assert min(cached[1:]) >= PAGE_SIZE

    def test_a_client_that_goes_away_frees_its_row(self, client, measured):
        asked = {"model": "tiny", "prompt": "the", "max_tokens": 500}
        stream = client.completions.create(stream=True, extra_body={"ignore_eos": True}, **asked)
        next(stream)
        stream.close()
        for _ in range(200):
            running = measured("limner_answers_running")
            if all(line.endswith(" 0.0") for line in running):
                break
            time.sleep(0.05)
        assert len(running) == 2 * 3
        assert all(line.endswith(" 0.0") for line in running)

    def test_keys_and_their_limits_are_those_of_one_server(self, cluster, client, keys):
        body = {"model": "tiny", "prompt": "the quick brown fox", "max_tokens": 8}
        assert ask(cluster, "POST", "/v1/completions", body).status == 401
        key = keys.create("student", Rights(tokens_per_minute=40))
        asked = partial(ask, cluster, "POST", "/v1/completions", authorization=f"Bearer {key}")
        replies = [asked(body | {"ignore_eos": True}) for _ in range(6)]
        assert replies[0].status == 200
        assert replies[-1].status == 429
        assert replies[-1].headers["retry-after"]

    def test_what_would_differ_between_replicas_is_refused(self, client):
        with pytest.raises(openai.BadRequestError, match="start it anew"):
            client.post("/models/load", body={"model": "x"}, cast_to=object)
        with pytest.raises(openai.BadRequestError, match="512"):
            client.completions.create(model="tiny", prompt=[5] * 600)
        with pytest.raises(openai.NotFoundError, match="this server has tiny, poet, clerk"):
            client.completions.create(model="none", prompt="a")

    def test_each_replica_answers_with_each_adapter(self, client, tiny, folders):
        listed = {model.id: model.parent for model in client.models.list()}
        assert listed == {"tiny": None, "poet": "tiny", "clerk": "tiny"}
        for name in listed:
            known = expected(tiny, folders, name)
            assert [text_of(client, name) for _ in range(4)] == [known] * 4

    def test_adapters_come_to_all_replicas_and_go(self, client, change, keys, tiny, folders):
        folder = str(folders / "late")
        loaded = change("load", lora_name="late", lora_path=folder)
        assert (loaded.status, loaded.json["parent"]) == (200, "tiny")
        assert change("load", lora_name="late", lora_path=folder).status == 409
        known = expected(tiny, folders, "late")
        assert [text_of(client, "late") for _ in range(6)] == [known] * 6
        gone = change("unload", lora_name="late")
        assert gone.json == {"id": "late", "object": "model", "deleted": True}
        for _ in range(6):
            with pytest.raises(openai.NotFoundError):
                text_of(client, "late")
        assert text_of(client, "poet") == expected(tiny, folders, "poet")

    def test_an_adapter_that_no_replica_can_load_changes_nothing(self, client, change, folders):
        wrong = change("load", lora_name="x", lora_path=str(folders / "none"))
        assert (wrong.status, "no adapter at" in wrong.error["message"]) == (400, True)
        assert "model_folders" in change("load", lora_name="x", lora_path="/etc").error["message"]
        taken = change("load", lora_name="tiny", lora_path=str(folders / "late"))
        assert taken.status == 409
        assert change("unload", lora_name="tiny").error["message"] == "'tiny' is no adapter"
        assert change("unload", lora_name="none").status == 404
        with pytest.raises(openai.PermissionDeniedError):
            client.post("/unload_lora_adapter", body={"lora_name": "poet"}, cast_to=object)
        assert [model.id for model in client.models.list()] == ["tiny", "poet", "clerk"]

    def test_stored_responses_are_found_whichever_replica_answers(self, cluster, client, keys):
        first = client.responses.create(model="tiny", input="the quick", max_output_tokens=4)
        asked = {"model": "tiny", "input": "fox", "max_output_tokens": 4, "temperature": 0}
        follow = [client.responses.create(previous_response_id=first.id, **asked) for _ in range(6)]
        assert len({(one.output_text, one.usage.input_tokens) for one in follow}) == 1
        assert follow[0].usage.input_tokens > first.usage.total_tokens
        stream = client.responses.create(previous_response_id=follow[0].id, stream=True, **asked)
        last = list(stream)[-1].response
        assert client.responses.retrieve(last.id).output_text == last.output_text
        assert len(client.responses.input_items.list(last.id).data) == 5
        key = keys.create("stranger")
        body = asked | {"previous_response_id": first.id}
        refused = ask(cluster, "POST", "/v1/responses", body, authorization=f"Bearer {key}")
        assert refused.error["code"] == "previous_response_not_found"
        client.responses.delete(last.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.id)

    def test_told_to_stop_while_replicas_load_it_ends_with_success(self, cluster, tiny, tmp_path):
        import ray
        from ray import serve as ray_serve

        environment = os.environ | {
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "LIMNER_DATA": str(tmp_path),
        }  # fmt: skip
        words = ["serve", str(tiny), "--cluster", "port=0", "replica_cpus=0.25"]
        process = subprocess.Popen(
            [sys.executable, "-m", "limner", *words],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while len(ray_serve.status().applications) < 2:
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        assert "SIGTERM" not in said
        assert "ready" not in said
        assert list(ray_serve.status().applications) == [cluster.name]


def test_a_replica_that_comes_late_serves_the_same_adapters(loading, folders, tiny):
    late = LoadAdapterRequest(lora_name="late", lora_path=str(folders / "late"))
    other = LoadAdapterRequest(lora_name="poet", lora_path=str(folders / "late"))
    none = LoadAdapterRequest(lora_name="none", lora_path=str(folders / "none"))

    async def follow():
        replica = Replica(loading, Limits())
        served = replica.registry.served
        assert await replica.begin() == ["poet", "clerk"]
        before = served["clerk"]
        assert await replica.follow(Attached({"clerk": None, "late": late}, 3)) == []
        assert list(served) == ["tiny", "clerk", "late"]
        assert await replica.follow(Attached({"poet": None}, 2)) == []  # older
        assert list(served) == ["tiny", "clerk", "late"]
        wanted = {"clerk": None, "poet": other, "none": none}
        (error,) = await replica.follow(Attached(wanted, 4))
        assert (error.status, error.param) == (400, "lora_path")
        assert list(served) == ["tiny", "clerk", "poet"]
        assert served["clerk"] is before
        await replica.registry.stop()

    asyncio.run(follow())


def test_paths_lead_to_the_same_files_from_wherever_replicas_work(tiny, folders, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    settings = serve.Command(
        cluster=True,
        model=("small=tiny.gguf",),
        adapter=(f"poet={os.path.relpath(folders / 'poet')}",),
        model_folders=(Path("."),),
    )
    loading = serve.make_server(settings).loading
    monkeypatch.chdir("/")
    model = loading.models["small"]()
    assert isinstance(model, LanguageModel)
    assert list(model.adapters) == ["poet"]
    loading.opening.check_adapter(str(tiny.parent / "late"))


def test_requests_begin_as_their_prompts_do():
    first = {"model": "m", "temperature": 1, "messages": [{"role": "user", "content": "a b"}]}
    other = {"messages": [{"role": "user", "content": "a b"}], "model": "m", "stream": True}
    assert beginning(first) == beginning(other) == "m\nuser\na b"
    assert beginning({"model": "m", "prompt": [5, 6]}) == "m\n5\n6"
    assert beginning({}) == ""


def test_what_follows_a_stored_response_begins_as_that_did():
    said = {"type": "output_text", "text": "answer", "annotations": [], "logprobs": []}
    answer = {"id": "msg_1", "type": "message", "role": "assistant", "content": [said]}
    first = Stored({"output": [answer]}, [{"type": "message", "role": "user", "content": "a b"}])
    begun = beginning({"model": "m", "input": "a b"})
    follows = beginning({"model": "m", "input": "and then"}, first)
    assert follows == f"{begun}\nanswer\nand then"


def test_the_longest_known_beginning_says_who_read_it():
    known = Beginnings(most=4)
    known.remember("a" * 300, "first")
    known.remember("a" * 200 + "b" * 200, "second")
    assert known.reader("a" * 300) == "first"
    assert known.reader("a" * 200 + "b" * 300) == "second"
    assert known.reader("a" * 100) is None  # less than is compared
    known.remember("c" * 1000, "third")
    assert known.reader("a" * 300) is None  # forgotten, since others came


def test_more_than_the_cluster_has_is_refused_with_both_numbers():
    assert shares(Placement(2), {"CPU": 7.0}) == Placement(2, 3.0, 0.0)
    assert shares(Placement(2), {"CPU": 8.0, "GPU": 2.0}) == Placement(2, 4.0, 1.0)
    with pytest.raises(ValueError, match=r"4 replicas with 1 CPUs each need 4.*has 2"):
        shares(Placement(4), {"CPU": 2.0})
    with pytest.raises(ValueError, match=r"2 replicas with 1 GPUs each need 2.*has 0"):
        shares(Placement(2, gpus=1), {"CPU": 2.0})


def test_measurements_of_replicas_stand_side_by_side():
    one = '# HELP tokens_total Tokens\n# TYPE tokens_total counter\ntokens_total{model="m"} 3.0\n'
    lines = merged([("a", one), ("b", one)]).decode().splitlines()
    assert 'tokens_total{model="m",replica="a"} 3.0' in lines
    assert 'tokens_total{model="m",replica="b"} 3.0' in lines
    assert lines.count("# TYPE tokens_total counter") == 1
