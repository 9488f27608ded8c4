import pytest

from limner.language_model import Embedder
from limner.language_model.cross_encoder import load_cross_encoder
from limner.models.sentence import NormalizeConfig, PoolingConfig, SentenceEncoder
from limner.serving.keys import KeyStore
from limner.serving.opening import Opening
from limner.serving.server import Loading, Server, Serving
from tests.families import VOCABULARY
from tests.serving.conftest import ask, running
from tests.text_folders import write_folder

QUERY, TEXTS = "the cat sat", ["a dog ran", "the cat", "sun sea Paris"]
BERT = {
    "model_type": "bert", "architectures": ["BertForSequenceClassification"], "num_labels": 1,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": VOCABULARY, "max_position_embeddings": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    write_folder(folder, BERT)
    return folder


@pytest.fixture(scope="module")
def embedder(alone):
    network = SentenceEncoder(alone.network, PoolingConfig(), (NormalizeConfig(),))
    return Embedder("vectors", network, alone.tokenizer, 64)


@pytest.fixture(scope="module")
def post(scorer, embedder, tmp_path_factory):
    keys = KeyStore(tmp_path_factory.mktemp("keys") / "keys.sqlite")
    models = {"scorer": lambda: Opening().open(str(scorer)), "vectors": lambda: embedder}
    with running(Server(Loading(models), Serving(port=0), keys)) as server:
        yield lambda path, body: ask(server, "POST", path, body)


def expected(model, scorer, embedder, texts):
    if model == "vectors":
        return embedder.similarity(QUERY, texts)[0].tolist()
    alone = load_cross_encoder(scorer)
    return alone.scores([alone.encode(QUERY, text) for text in texts])


@pytest.mark.parametrize("model", ["scorer", "vectors"])
def test_scores_are_those_of_the_model(post, scorer, embedder, model):
    reply = post("/v1/score", {"model": model, "text_1": QUERY, "text_2": TEXTS}).json
    assert [one["index"] for one in reply["data"]] == [0, 1, 2]
    scores = [one["score"] for one in reply["data"]]
    assert scores == pytest.approx(expected(model, scorer, embedder, TEXTS), abs=1e-5)
    paired = post("/v1/score", {"model": model, "text_1": [QUERY] * 3, "text_2": TEXTS}).json
    assert [one["score"] for one in paired["data"]] == pytest.approx(scores, abs=1e-6)
    one = post("/v1/score", {"model": model, "text_1": QUERY, "text_2": TEXTS[1]}).json
    assert one["data"][0]["score"] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("model", ["scorer", "vectors"])
def test_a_ranking_puts_the_best_first(post, scorer, embedder, model):
    scores = expected(model, scorer, embedder, TEXTS)
    order = sorted(range(3), key=lambda index: -scores[index])
    body = {"model": model, "query": QUERY, "documents": TEXTS}
    reply = post("/v1/rerank", body).json
    assert [one["index"] for one in reply["results"]] == order
    assert "document" not in reply["results"][0]
    assert reply["usage"]["total_tokens"] > 10
    documents = [{"text": text} for text in TEXTS]
    best = post(
        "/v2/rerank", body | {"documents": documents, "top_n": 1, "return_documents": True}
    ).json["results"]
    assert best == [
        {
            "index": order[0],
            "relevance_score": pytest.approx(scores[order[0]], abs=1e-5),
            "document": {"text": TEXTS[order[0]]},
        }
    ]


@pytest.mark.parametrize("model", ["scorer", "vectors"])
def test_too_long_is_cut_only_if_asked(post, model):
    body = {"model": model, "query": QUERY, "documents": ["the cat " * 40]}
    refused = post("/v1/rerank", body)
    assert (refused.status, refused.error["param"]) == (400, "documents")
    assert post("/v1/rerank", body | {"truncate_prompt_tokens": 20}).status == 200


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ("/v1/score", {"text_1": [], "text_2": "a"}, "text_1"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "max_tokens_per_doc": 3},
         "max_tokens_per_doc"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(post, path, body, param):
    reply = post(path, {"model": "scorer"} | body)
    assert (reply.status, reply.error["param"]) == (400, param)


def test_a_language_model_ranks_nothing(send):
    reply = send("POST", "/v1/rerank", {"model": "tiny", "query": "a", "documents": ["a"]})
    assert reply.status == 400
    assert "cross-encoder" in reply.error["message"]
