import openai
import pytest

from limner.language_model import Embedder
from limner.models.sentence import NormalizeConfig, PoolingConfig, SentenceEncoder
from limner.serving.keys import KeyStore
from limner.serving.server import Loading, Server, Serving
from tests.serving.conftest import running

TEXTS = ["the quick brown fox", "a", "lazy dog. the lazy dog"]


@pytest.fixture(scope="module")
def embedder(alone):
    network = SentenceEncoder(alone.network, PoolingConfig(), (NormalizeConfig(),))
    return Embedder("vectors", network, alone.tokenizer, 64)


@pytest.fixture(scope="module")
def vectors(embedder, tmp_path_factory):
    """A client of a server with that embedder alone."""
    store = KeyStore(tmp_path_factory.mktemp("keys") / "keys.sqlite")
    loading = Loading({"vectors": lambda: embedder})
    with (
        running(Server(loading, Serving(port=0), store)) as server,
        openai.OpenAI(base_url=f"{server.address}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_are_those_of_the_embedder(vectors, embedder, form):
    raw = vectors.embeddings.create(model="vectors", input=TEXTS, encoding_format=form)
    expected = embedder.embed(TEXTS)
    if form == "float":
        for got, vector in zip(raw.data, expected, strict=True):
            assert got.embedding == pytest.approx(vector.tolist(), abs=1e-6)
    default = vectors.embeddings.create(model="vectors", input=TEXTS)  # base64, read by the client
    for got, vector in zip(default.data, expected, strict=True):
        assert got.embedding == pytest.approx(vector.tolist(), abs=1e-6)
    assert raw.usage.prompt_tokens == sum(map(len, embedder.tokenizer.encode_batch(TEXTS)))


def test_token_ids_are_taken_as_they_are(vectors, embedder):
    ids = embedder.tokenizer.encode(TEXTS[0])
    reply = vectors.embeddings.create(model="vectors", input=ids, encoding_format="float")
    expected = embedder.embed(TEXTS[0]).tolist()
    assert reply.data[0].embedding == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input": [5] * 65}, "65 tokens, but 'vectors' takes from 1 to 64"),
        ({"input": ""}, "0 tokens"),
        ({"input": [99_999]}, "no token"),
        ({"input": "a", "dimensions": 3}, "has 48"),
    ],
)
def test_what_does_not_fit_is_refused(vectors, options, words):
    with pytest.raises(openai.BadRequestError, match=words):
        vectors.embeddings.create(model="vectors", **options)


def test_an_embedder_does_not_chat(vectors):
    question = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError, match="does not generate text"):
        vectors.chat.completions.create(model="vectors", messages=question)
