from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken

from limner.language_model import LanguageModel
from limner.serving.keys import KeyStore
from limner.serving.server import Loading, Server, Serving
from limner.tokenizers import Tokenizer
from tests.docs.tiny_model import trained_tokenizer
from tests.serving.conftest import ask, running

MARKS = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>")


@pytest.fixture(scope="module")
def filler(alone):
    """A model whose vocabulary names four of its tokens as those that fill in the middle do."""
    engine = trained_tokenizer(Path(__file__).read_text(encoding="utf-8"))
    size = alone.config.vocabulary - len(MARKS)
    while engine.get_vocab_size() > size:
        engine = smaller(engine)
    engine.add_special_tokens([AddedToken(mark) for mark in MARKS])
    return LanguageModel("filler", alone.network, Tokenizer(engine), context=128)


def smaller(engine):
    """The tokenizer without its last merges."""
    import json

    facts = json.loads(engine.to_str())
    facts["model"]["merges"] = facts["model"]["merges"][:-8]
    kept = {piece for pair in facts["model"]["merges"] for piece in ("".join(pair), *pair)}
    vocabulary = [t for t in facts["model"]["vocab"] if len(t) == 1 or t in kept or "<|" in t]
    facts["model"]["vocab"] = {token: place for place, token in enumerate(vocabulary)}
    return tokenizers.Tokenizer.from_str(json.dumps(facts))


def test_a_suffix_is_told_to_the_model_in_its_own_tokens(filler, tmp_path):
    loading = Loading({"filler": lambda: filler})
    body = {
        "model": "filler", "prompt": "def add(", "suffix": "return a + b", "max_tokens": 9,
        "temperature": 1, "seed": 1, "ignore_eos": True,
    }  # fmt: skip
    with running(Server(loading, Serving(port=0), KeyStore(tmp_path / "keys"))) as server:
        reply = ask(server, "POST", "/v1/completions", body).json
        refused = ask(server, "POST", "/v1/completions", body | {"echo": True})
    before, after, middle, pad = (filler.tokenizer.token_id(mark) for mark in MARKS)
    plain = [
        filler.tokenizer.encode(text, add_special_tokens=False)
        for text in ("def add(", "return a + b")
    ]
    prompt = [before, *plain[0], after, *plain[1], middle]
    assert reply["usage"]["prompt_tokens"] == len(prompt)
    sequence = filler.engine.submit(
        prompt, filler.sampling(temperature=1, seed=1, max_tokens=9, stop_tokens=(pad,)),
        decoder=filler._new_decoder(),
    )  # fmt: skip
    assert reply["choices"][0]["text"] == "".join(
        event.text for event in filler.engine.follow(sequence)
    )
    assert refused.status == 400


def test_a_prompt_loses_its_beginning_only_if_asked(client, alone):
    ids = alone.encode("the quick brown fox jumps over the lazy dog")
    options = {"temperature": 1, "seed": 7, "max_tokens": 8}
    cut = client.completions.create(
        model="tiny", prompt=ids * 60, extra_body={"truncate_prompt_tokens": 9}, **options
    )
    same = client.completions.create(model="tiny", prompt=(ids * 60)[-9:], **options)
    assert cut.choices[0].text == same.choices[0].text
    assert cut.usage.prompt_tokens == 9
