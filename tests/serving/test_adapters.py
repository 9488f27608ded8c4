"""Adapters behind the API: chosen by name, in one batch with the base, and they come and go."""

import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import limner
from limner.serving.keys import KeyStore, Rights
from limner.serving.opening import Opening
from limner.serving.server import Loading, Server, Serving
from tests.serving.conftest import ask, running

ASKED = {"prompt": "the quick", "max_tokens": 12, "temperature": 0.8, "seed": 3}


@pytest.fixture
def adapted(tiny, folders, tmp_path):
    """Start a server with a model and two of its adapters."""

    def load():
        model = limner.load(tiny, context=512)
        for name in ("poet", "clerk"):
            model.attach(name, folders / name)
        return model

    def start(store=None, **settings):
        opening = Opening(folders=(folders,))
        keys = store or KeyStore(tmp_path / "none.sqlite")
        return running(Server(Loading({"tiny": load}, opening), Serving(port=0, **settings), keys))

    return start


def client_of(server):
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)


def text_of(client, model, **changes):
    asked = {**ASKED, **changes}
    extra = {"ignore_eos": True}
    return client.completions.create(model=model, extra_body=extra, **asked).choices[0].text


def expected(tiny, folders, adapter):
    model = limner.load(tiny, context=512)
    if adapter != "tiny":
        model.attach(adapter, folders / adapter)
    options = {name: value for name, value in ASKED.items() if name != "prompt"}
    chosen = None if adapter == "tiny" else adapter
    return model.generate("the quick", adapter=chosen, ignore_eos=True, **options).text


def test_a_request_chooses_an_adapter_by_its_name(adapted, tiny, folders):
    with adapted() as server, client_of(server) as client:
        listed = {model.id: model for model in client.models.list()}
        assert {name: model.parent for name, model in listed.items()} == {
            "tiny": None, "poet": "tiny", "clerk": "tiny",
        }  # fmt: skip
        texts = {name: text_of(client, name) for name in listed}
        assert texts == {name: expected(tiny, folders, name) for name in listed}
        assert len(set(texts.values())) == 3
        asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "seed": 1}
        chats = [client.chat.completions.create(model=name, **asked) for name in listed]
        assert [chat.model for chat in chats] == list(listed)
        assert len({chat.choices[0].message.content for chat in chats}) == 3
        streamed = client.completions.create(
            model="poet", stream=True, extra_body={"ignore_eos": True}, **ASKED
        )
        assert "".join(chunk.choices[0].text for chunk in streamed) == texts["poet"]


def test_answers_of_different_adapters_share_a_batch_and_stay_the_same(adapted):
    with adapted() as server, client_of(server) as client:
        names = ["tiny", "poet", "clerk"] * 3
        alone = [text_of(client, name, max_tokens=60, seed=n) for n, name in enumerate(names)]
        together = []
        runner = server.registry.served["tiny"].thread.engine.runner
        run = runner.run

        def watched(work, *draw):
            together.append({item.sequence.adapter for item in work})
            return run(work, *draw)

        runner.run = watched
        with ThreadPoolExecutor(9) as pool:
            asked = [
                pool.submit(text_of, client, name, max_tokens=60, seed=n)
                for n, name in enumerate(names)
            ]
            assert [one.result() for one in asked] == alone
        assert max(map(len, together)) == 3


def test_scores_and_vectors_are_those_of_the_adapter(adapted):
    with adapted() as server, client_of(server) as client:
        asked = {"prompt": "the quick", "max_tokens": 0, "echo": True, "logprobs": 1}
        scores = [
            client.completions.create(model=name, **asked).choices[0].logprobs.token_logprobs
            for name in ("tiny", "poet", "clerk")
        ]
        assert len({tuple(some) for some in scores}) == 3
        vectors = [
            client.embeddings.create(model=name, input="the quick").data[0].embedding
            for name in ("tiny", "poet")
        ]
        assert vectors[0] != vectors[1]


def test_adapters_come_and_go_while_the_server_runs(adapted, folders):
    with adapted() as server, client_of(server) as client:
        before = text_of(client, "tiny")
        body = {"lora_name": "late", "lora_path": str(folders / "late")}
        reply = ask(server, "POST", "/v1/load_lora_adapter", body)
        assert (reply.status, reply.json["parent"]) == (200, "tiny")
        assert ask(server, "POST", "/v1/load_lora_adapter", body).status == 409
        assert len({before, text_of(client, "late"), text_of(client, "poet")}) == 3
        metrics = ask(server, "GET", "/metrics").body.decode()
        assert 'limner_generated_tokens_total{model="late"} 12.0' in metrics
        assert 'limner_answers_running{model="late"} 0.0' in metrics
        gone = ask(server, "POST", "/v1/unload_lora_adapter", {"lora_name": "late"})
        assert gone.json == {"id": "late", "object": "model", "deleted": True}
        assert ask(server, "DELETE", "/v1/models/clerk").status == 200
        with pytest.raises(openai.NotFoundError):
            text_of(client, "late")
        assert [model.id for model in client.models.list()] == ["tiny", "poet"]
        assert text_of(client, "tiny") == before
        refused = ask(server, "POST", "/v1/unload_lora_adapter", {"lora_name": "tiny"})
        assert (refused.status, refused.error["message"]) == (400, "'tiny' is no adapter")
        assert ask(server, "DELETE", "/v1/models/tiny").status == 200
        assert list(client.models.list()) == []


def test_an_answer_under_way_ends_though_its_adapter_is_unloaded(adapted):
    with adapted() as server, client_of(server) as client:
        whole = text_of(client, "poet", max_tokens=200)
        texts = []
        asking = threading.Thread(
            target=lambda: texts.append(text_of(client, "poet", max_tokens=200))
        )
        asking.start()
        while not server.registry.served["tiny"].thread.running:
            pass
        assert ask(server, "DELETE", "/v1/models/poet").status == 200
        asking.join()
        assert texts == [whole]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"lora_name": "x", "lora_path": "/etc"}, 400, "start it with model_folders=FOLDER"),
        ({"lora_name": "x", "lora_path": "{folders}/none"}, 400, "no adapter at"),
        ({"lora_name": "x", "lora_path": "{folders}"}, 400, "this is no adapter of peft's"),
        ({"lora_name": "poet", "lora_path": "{folders}/late"}, 409, "a model 'poet' already"),
        (
            {"lora_name": "x", "lora_path": "{folders}/late", "base_model_name": "poet"},
            400, "'poet' is an adapter itself",
        ),
        ({"lora_path": "{folders}/late"}, 400, "lora_name"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_an_error_and_nothing_else(adapted, folders, body, status, words):
    asked = {name: value.replace("{folders}", str(folders)) for name, value in body.items()}
    with adapted() as server:
        reply = ask(server, "POST", "/v1/load_lora_adapter", asked)
        assert (reply.status, words in reply.error["message"]) == (status, True), reply.json
        assert len(ask(server, "GET", "/v1/models").json["data"]) == 3


def test_only_an_administrators_key_changes_adapters(adapted, folders, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    plain, admin = store.create("plain"), store.create("boss", Rights(admin=True))
    body = {"lora_name": "late", "lora_path": str(folders / "late")}
    with adapted(store, require_keys=True) as server:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            sent = body if "/load" in path else {"lora_name": "late"}
            refused = ask(server, "POST", path, sent, Authorization=f"Bearer {plain}")
            assert (refused.status, refused.error["code"]) == (403, "not_an_administrator")
            done = ask(server, "POST", path, sent, Authorization=f"Bearer {admin}")
            assert done.status == 200
