import base64

import numpy
import openai
import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

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
        ({"input": "a", "dimensions": 49}, "dimensions is 49, but 'vectors' has 48"),
    ],
)
def test_what_does_not_fit_is_refused(vectors, options, words):
    with pytest.raises(openai.BadRequestError, match=words):
        vectors.embeddings.create(model="vectors", **options)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_fewer_dimensions_are_the_first_at_length_one(vectors, embedder, form):
    asked = {"model": "vectors", "input": TEXTS, "dimensions": 5, "encoding_format": form}
    data = vectors.embeddings.create(**asked).data
    got = [one.embedding if form == "float" else unpacked(one.embedding) for one in data]
    expected = functional.normalize(embedder.embed(TEXTS)[:, :5], dim=-1)
    assert_close(torch.tensor(got), expected)


def unpacked(text):
    return numpy.frombuffer(base64.b64decode(text), "<f4").tolist()


def test_a_model_that_writes_makes_vectors_too(client, alone):
    network = SentenceEncoder(alone.network, PoolingConfig(), ())
    texts = [*TEXTS, "over the lazy dog " * 30]  # computed in several pieces
    expected = Embedder("mean", network, alone.tokenizer, 512).embed(texts)
    got = [one.embedding for one in client.embeddings.create(model="tiny", input=texts).data]
    assert_close(torch.tensor(got), expected, rtol=1e-4, atol=1e-5)
    cut = client.embeddings.create(model="tiny", input=texts, dimensions=7).data
    assert_close(
        torch.tensor([one.embedding for one in cut]), expected[:, :7], rtol=1e-4, atol=1e-5
    )


def test_its_answers_go_on_meanwhile_and_stay_the_same(client):
    asked = {"model": "tiny", "prompt": "the quick", "max_tokens": 40, "temperature": 0}
    expected = client.completions.create(**asked).choices[0].text
    stream = client.completions.create(stream=True, **asked)
    text = next(stream).choices[0].text
    client.embeddings.create(model="tiny", input=["over the lazy dog " * 30] * 4)
    assert text + "".join(chunk.choices[0].text for chunk in stream) == expected


def test_an_embedder_does_not_chat(vectors):
    question = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError, match="does not generate text"):
        vectors.chat.completions.create(model="vectors", messages=question)
