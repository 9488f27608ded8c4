"""Two replicas behind one address, in a Ray cluster on this machine."""

import threading
import time
import warnings
from functools import partial

import openai
import pytest

import limner
from limner.nn.paged import PAGE_SIZE
from limner.serving.keys import KeyStore, Rights
from limner.serving.server import Loading, Serving
from tests.serving.conftest import ask

pytest.importorskip("ray", reason="Ray is not installed: pip install 'limner[cluster]'")

from limner.serving.cluster import ClusterServer, Placement, beginning, merged, shares

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
def cluster(tiny, keys, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMNER_DATA", str(tmp_path_factory.mktemp("data")))
        keys.create("free")
        loading = Loading({"tiny": partial(limner.load, tiny, context=512)})
        serving = Serving(port=0, require_keys=True)
        server = ClusterServer(loading, serving, keys, Placement(replicas=2, cpus=0.5))
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
        assert [model.id for model in client.models.list()] == ["tiny"]
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
        assert len(running) == 2
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
        for path in ("/models/load", "/load_lora_adapter", "/unload_lora_adapter"):
            with pytest.raises(openai.BadRequestError, match="start it anew"):
                client.post(path, body={"model": "x"}, cast_to=object)
        with pytest.raises(openai.BadRequestError, match="512"):
            client.completions.create(model="tiny", prompt=[5] * 600)
        with pytest.raises(openai.NotFoundError, match="this server has tiny"):
            client.completions.create(model="none", prompt="a")


def test_requests_begin_as_their_prompts_do():
    first = b'{"model": "m", "temperature": 1, "messages": [{"role": "user", "content": "a b"}]}'
    other = b'{"messages": [{"role": "user", "content": "a b"}], "model": "m", "stream": true}'
    assert beginning(first) == beginning(other) == "m\nuser\na b"
    assert beginning(b'{"model": "m", "prompt": [5, 6]}') == "m\n5\n6"
    assert beginning(b"no JSON") == beginning(b"[1]") == beginning(b"[" * 10_000) == ""


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
