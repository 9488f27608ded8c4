"""Embeddings equal those of sentence-transformers, and do not depend on their batch-mates."""

import json

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)
from torch import nn

from limner.checkpoints.sentence import open_sentence_encoder, save_sentence_encoder
from limner.language_model import embedder as embedding
from limner.language_model import load_embedder
from tests.families import bert, llama
from tests.text_folders import write_folder

TEXTS = [
    "the cat sat on the red house",
    "a dog",
    "the old king and the young queen is in Paris",
    "sun",
    "unheard words of the sea",
]
#: Ways of pooling, and what comes after.
KINDS = {
    "first": (["cls"], []),
    "max": (["max"], ["normalize"]),
    "mean": (["mean"], ["normalize"]),
    "root": (["mean_sqrt_len_tokens"], []),
    "weighted": (["weightedmean"], ["dense"]),
    "last": (["lasttoken"], ["normalize"]),
    "two": (["mean", "max"], ["dense", "normalize"]),
}


@pytest.fixture(params=KINDS)
def pair(request, tmp_path):
    """A reference and the folder it was saved to."""
    modes, rest = KINDS[request.param]
    fields = bert(architectures=["BertModel"])
    write_folder(tmp_path / "bert", fields)
    torch.manual_seed(1)
    transformer = Transformer(str(tmp_path / "bert"), max_seq_length=20)
    pooling = Pooling(fields["hidden_size"], pooling_mode=tuple(modes))
    steps = {
        "dense": Dense(len(modes) * 42, 10, activation_function=nn.GELU()),
        "normalize": Normalize(),
    }
    reference = SentenceTransformer(
        modules=[transformer, pooling, *(steps[name] for name in rest)], device="cpu"
    )
    reference.save(str(tmp_path / "whole"))
    return reference.eval(), tmp_path / "whole"


def test_embeddings_equal_the_reference(pair, tmp_path):
    reference, folder = pair
    want = reference.encode(TEXTS, convert_to_tensor=True).clone()
    embedder = load_embedder(folder)
    got = embedder.embed(TEXTS)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert got.shape == (len(TEXTS), embedder.network.width)

    save_sentence_encoder(embedder.network, tmp_path / "again", embedder.tokenizer, 20)
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    torch.testing.assert_close(
        again.encode(TEXTS, convert_to_tensor=True).clone(), want, atol=1e-5, rtol=1e-5
    )


def test_an_embedding_does_not_depend_on_its_batch_mates(pair, monkeypatch):
    embedder = load_embedder(pair[1])
    together = embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(embedder.embed(text), vector, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 16)  # a row or two at a time
    torch.testing.assert_close(embedder.embed(TEXTS), together, atol=1e-5, rtol=1e-5)


@pytest.fixture
def plain(tmp_path):
    """An encoder without a word on pooling, which the mean of its tokens' vectors sums up."""
    return write_folder(tmp_path, bert(architectures=["BertModel"])), tmp_path


@torch.no_grad()
def test_without_pooling_the_mean_is_taken(plain):
    model, folder = plain
    embedder = load_embedder(folder)
    ids = embedder.tokenizer.encode(TEXTS[0])
    want = model(torch.tensor([ids])).last_hidden_state.mean(1)[0]
    torch.testing.assert_close(embedder.embed(TEXTS[0]), want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_decoder_embeds_too(tmp_path):
    model = write_folder(tmp_path, llama(architectures=["LlamaForCausalLM"]))
    embedder = load_embedder(tmp_path)
    ids = embedder.tokenizer.encode(TEXTS[0])
    want = model.model(torch.tensor([ids])).last_hidden_state.mean(1)[0]
    torch.testing.assert_close(embedder.embed(TEXTS)[0], want, atol=1e-5, rtol=1e-5)


def test_similarity_is_the_cosine(plain):
    embedder = load_embedder(plain[1])
    found = embedder.similarity(TEXTS[:2], TEXTS)
    vectors = embedder.embed(TEXTS)
    assert found.shape == (2, 5)
    want = torch.cosine_similarity(vectors[1], vectors[3], dim=0)
    torch.testing.assert_close(found[1, 3], want)
    torch.testing.assert_close(found.diagonal(), torch.ones(2))


def test_too_long_a_text_is_refused_or_cut_when_asked_for(plain):
    embedder = load_embedder(plain[1])
    long = " ".join(["cat"] * 60)
    with pytest.raises(ValueError, match=r"text 2 has 62 tokens but '.*' takes 40"):
        embedder.embed(["a cat", long])
    fitting = " ".join(["cat"] * 38)
    torch.testing.assert_close(embedder.embed(long, truncate=True), embedder.embed(fitting))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling_mode": "median"}, "unknown pooling_mode 'median'"),
        ({"word_embedding_dimension": 42}, "no pooling mode is on"),
    ],
)
def test_an_unknown_pooling_is_named(plain, change, message):
    folder = plain[1]
    parts = [{"path": "", "type": "a.Transformer"}, {"path": "1", "type": "a.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(parts))
    (folder / "1").mkdir()
    (folder / "1" / "config.json").write_text(json.dumps(change))
    with pytest.raises(ValueError, match=message):
        open_sentence_encoder(folder)


def test_a_part_outside_the_folder_is_refused(plain):
    folder = plain[1]
    parts = [{"path": "", "type": "a.Transformer"}, {"path": "../other", "type": "a.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(parts))
    with pytest.raises(ValueError, match=r"names '\.\./other' outside its folder"):
        open_sentence_encoder(folder)
