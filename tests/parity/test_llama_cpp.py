"""GGUF files that we write, in llama.cpp: the same tokens, the same greedy text, the same vectors.

llama-cpp-python takes minutes to build, so these tests run only where it is installed already.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limner.checkpoints.gguf_writing import save_gguf
from limner.models.decoder import Decoder
from limner.models.encoder import Encoder
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.families import find_family
from limner.models.network import Network
from limner.tokenizers import Tokenizer, load_tokenizer
from tests.decoder_families import gemma2, gemma3, like_llama, qwen3_moe
from tests.families import Fields, bert, gpt2, llama, rope, t5
from tests.tokenizers.samples import byte_level, sentencepiece_model, wordpiece

llama_cpp: Any = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python takes minutes to build: pip install llama-cpp-python"
)

NEW_TOKENS = 60
TEXTS = [
    "the statement is executed in a new scope, and 1234 names are bound",
    "naïve café 日本語 Привет мир! 👩‍👩‍👧 isn't it?\n\n\tTabs  and   spaces 12 345",
    "x = f(a[0], b='c') # comment\nfor i in range(10):\n    print(i)\n",
]

DECODERS: dict[str, tuple[str, Fields]] = {
    "llama": ("spm", llama()),
    "llama3": (
        "bpe",
        llama(
            num_key_value_heads=5,
            tie_word_embeddings=True,
            **rope(
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
    ),
    "mistral": ("spm", like_llama("mistral", sliding_window=None)),
    "mixtral": ("spm", like_llama("mixtral", num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("bpe", like_llama("qwen2")),
    "qwen3": ("bpe", like_llama("qwen3")),
    "qwen3-moe": ("bpe", qwen3_moe(norm_topk_prob=True)),
    "gemma": ("gemma", like_llama("gemma", pad_token_id=0)),
    "gemma2": ("gemma", gemma2(query_pre_attn_scalar=12)),
    "gemma3": ("gemma", gemma3(query_pre_attn_scalar=12, sliding_window_pattern=6)),
    "phi3": ("spm", like_llama("phi3", pad_token_id=0)),
    "gpt2": ("bpe", gpt2()),
}
ENCODER_DECODERS: dict[str, Fields] = {
    "t5": t5(relative_attention_max_distance=128),
    "t5-1.1": t5(
        relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
}


def tokenizer(kind: str, folder: Path) -> Tokenizer:
    """A small tokenizer of each kind that llama.cpp knows."""
    if kind in ("bpe", "wordpiece"):
        return byte_level() if kind == "bpe" else wordpiece()
    settings = {"spm": ("bpe", "llama"), "gemma": ("bpe", "gemma"), "unigram": ("unigram", "plain")}
    path = folder / "tokenizer.model"
    path.write_bytes(sentencepiece_model(*settings[kind]))
    return load_tokenizer(path)


def network_of(fields: Fields, vocabulary: int) -> Network:
    """A tiny network with random weights, large enough that logits lie apart."""
    torch.manual_seed(0)
    fields = fields | {"vocab_size": vocabulary}
    network = find_family(fields["model_type"]).read_config(fields).build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network.eval()


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[Any]:
    """The file in llama.cpp, everything in float32."""
    plain = {"n_ctx": 128, "n_batch": 128, "n_ubatch": 128, "n_threads": 1, "verbose": False}
    peer = llama_cpp.Llama(str(path), **plain, type_k=0, type_v=0, **options)
    try:
        yield peer
    finally:
        peer.close()


def greedy(network: Decoder, tokens: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """The most probable continuation, and the logits of the first of its tokens."""
    written: list[int] = []
    cache = network.new_cache(1, len(tokens) + count)
    first = logits = network.logits(torch.tensor([tokens]), cache.step([(0, len(tokens))]))[0, -1]
    while True:
        written.append(int(logits.argmax()))
        if len(written) == count:
            return written, first
        logits = network.logits(torch.tensor([written[-1:]]), cache.step([(0, 1)]))[0, -1]


def greedy_there(peer: Any, tokens: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """The same in llama.cpp."""
    peer.reset()
    peer.eval(tokens)
    first = torch.tensor(last_logits(peer))
    written = [int(first.argmax())]
    while len(written) < count:
        peer.eval(written[-1:])
        written.append(int(np.argmax(last_logits(peer))))
    return written, first


def readable(text: str) -> str:
    """Text without what broken UTF-8 is replaced by, byte by byte or all at once."""
    return text.replace("\ufffd", "").strip()


def last_logits(peer: Any) -> Any:
    """The logits of the last token that was evaluated (V,)."""
    row = llama_cpp.llama_get_logits_ith(peer.ctx, -1)
    return np.ctypeslib.as_array(row, (peer.n_vocab(),)).copy()


@pytest.mark.parametrize("name", DECODERS)
@torch.inference_mode()
def test_greedy_text_is_the_same(name, tmp_path):
    kind, fields = DECODERS[name]
    ours = tokenizer(kind, tmp_path)
    network = network_of(fields, ours.vocabulary_size + 8)
    assert isinstance(network, Decoder)
    save_gguf(network, tmp_path / "model.gguf", ours, "F32")
    with opened(tmp_path / "model.gguf") as peer:
        for text in TEXTS:
            tokens = ours.encode(text)[:40]
            want, logits = greedy(network, tokens, NEW_TOKENS)
            found, theirs = greedy_there(peer, tokens, NEW_TOKENS)
            torch.testing.assert_close(theirs, logits, atol=2e-2, rtol=2e-3)
            assert found == want
            spelled = b"".join(peer.detokenize([token]) for token in found)
            assert readable(spelled.decode(errors="replace")) == readable(ours.decode(found))


@pytest.mark.parametrize("kind", ["bpe", "spm", "gemma", "wordpiece", "unigram"])
def test_text_becomes_the_same_tokens(kind, tmp_path):
    ours = tokenizer(kind, tmp_path)
    size = ours.vocabulary_size + 8
    fields = bert(architectures=["BertModel"]) if kind == "wordpiece" else llama()
    if kind == "unigram":
        fields = ENCODER_DECODERS["t5"]
    save_gguf(network_of(fields, size), tmp_path / "model.gguf", ours, "F32")
    with opened(tmp_path / "model.gguf", vocab_only=True) as peer:
        for text in TEXTS:
            assert peer.tokenize(text.encode(), add_bos=True, special=False) == ours.encode(text)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@torch.inference_mode()
def test_greedy_targets_are_the_same(name, tmp_path):
    ours = tokenizer("unigram", tmp_path)
    network = network_of(ENCODER_DECODERS[name], ours.vocabulary_size + 8)
    assert isinstance(network, EncoderDecoder)
    save_gguf(network, tmp_path / "model.gguf", ours, "F32")
    with opened(tmp_path / "model.gguf") as peer:
        for text in TEXTS:
            source = ours.encode(text)[:100]
            want = written_here(network, source, NEW_TOKENS)
            assert written_there(peer, source, network.config.start, NEW_TOKENS) == want


def written_here(network: EncoderDecoder, source: list[int], count: int) -> list[int]:
    """The most probable target, token by token."""
    state = network.read(torch.tensor([source]))
    target = [network.config.start]
    while len(target) <= count:
        target.append(int(network.logits(torch.tensor([target]), state)[0, -1].argmax()))
    return target


def written_there(peer: Any, source: list[int], start: int, count: int) -> list[int]:
    """The same in llama.cpp, whose Python class knows no encoder-decoders."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(peer.ctx), True)
    array = (ctypes.c_int32 * len(source))(*source)
    assert llama_cpp.llama_encode(peer.ctx, llama_cpp.llama_batch_get_one(array, len(source))) == 0
    target = [start]
    while len(target) <= count:
        last = (ctypes.c_int32 * 1)(target[-1])
        assert llama_cpp.llama_decode(peer.ctx, llama_cpp.llama_batch_get_one(last, 1)) == 0
        target.append(int(np.argmax(last_logits(peer))))
    return target


@torch.inference_mode()
def test_vectors_of_tokens_are_the_same(tmp_path):
    ours = tokenizer("wordpiece", tmp_path)
    fields = bert(architectures=["BertModel"], max_position_embeddings=64)
    network = network_of(fields, ours.vocabulary_size)
    assert isinstance(network, Encoder)
    save_gguf(network, tmp_path / "model.gguf", ours, "F32")
    none = llama_cpp.LLAMA_POOLING_TYPE_NONE
    with opened(tmp_path / "model.gguf", embedding=True, pooling_type=none) as peer:
        for text in TEXTS:
            hidden = network(torch.tensor([ours.encode(text)]))[0]
            # llama.cpp bends by a table of GELU in float16.
            torch.testing.assert_close(torch.tensor(peer.embed(text)), hidden, atol=5e-3, rtol=1e-3)
