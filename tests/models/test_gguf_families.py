"""GGUF files of every family: read back the same, and equal in transformers' reader."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from limner.checkpoints.checkpoint import open_checkpoint
from limner.checkpoints.gguf_writing import save_gguf
from limner.models.decoder import Decoder
from limner.models.families import find_family, mistral
from tests.decoder_families import (
    DECODERS,
    gemma2,
    gemma3,
    gpt_neox,
    like_llama,
    qwen3_moe,
)
from tests.families import VOCABULARY, Fields, gpt2, llama

#: What can be said in a GGUF file; some samples need settings that llama.cpp takes for granted.
FILES: dict[str, Fields] = {
    **{
        name: DECODERS[name]
        for name in (
            "llama",
            "llama-tied",
            "llama-linear",
            "llama-yarn",
            "llama-llama3",
            "mixtral",
            "qwen2",
            "qwen3",
            "gemma",
            "phi3",
            "phi3-partial",
            "phi3-longrope",
            "gpt-neox",
            "bloom",
            "bloom-12-heads",
            "gpt2",
        )
    },
    "llama-biases": llama(attention_bias=True),
    "gpt-neox-in-line": gpt_neox(use_parallel_residual=False),
    "mistral": like_llama("mistral", sliding_window=64),
    "qwen3-moe": qwen3_moe(norm_topk_prob=True),
    "gemma2": gemma2(query_pre_attn_scalar=12),
    "gemma3": gemma3(query_pre_attn_scalar=12),
    "gemma3-dense": gemma3(
        query_pre_attn_scalar=12, sliding_window_pattern=1, final_logit_softcapping=4.0
    ),
}
#: Those whose tensors transformers, too, can read.
UNREAD = {"gpt-neox", "gpt-neox-in-line", "gemma", "gemma3-dense", "mistral", "mixtral"}
REFERENCE = [name for name in FILES if name not in UNREAD]


def network_of(fields: Fields) -> Decoder:
    """A tiny network with random weights."""
    torch.manual_seed(0)
    network = find_family(fields["model_type"]).read_config(fields).build()
    assert isinstance(network, Decoder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval()


def write(network: Decoder, path: Path) -> None:
    """Write a file, nothing rounded."""
    save_gguf(network, path, None, "F32")


def some_tokens() -> torch.Tensor:
    """Random tokens."""
    return torch.randint(3, VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_a_file_reads_back_the_same(name, tmp_path):
    network, tokens = network_of(FILES[name]), some_tokens()
    write(network, tmp_path / "model.gguf")
    again = open_checkpoint(tmp_path / "model.gguf").network()
    assert isinstance(again, Decoder)
    torch.testing.assert_close(again.logits(tokens), network.logits(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", REFERENCE)
@torch.no_grad()
def test_the_reference_reads_a_file_alike(name, tmp_path):
    network, tokens = network_of(FILES[name]), some_tokens()
    write(network, tmp_path / "model.gguf")
    fields = find_family(network.config.family).write_config(network.config)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", config=AutoConfig.for_model(**fields)
    ).eval()
    torch.testing.assert_close(model(tokens).logits, network.logits(tokens), atol=1e-4, rtol=1e-4)


def test_a_window_that_llama_cpp_ignores_ends_the_context():
    config = network_of(like_llama("mistral", sliding_window=64)).config
    header = mistral.write_gguf(config)
    assert header.metadata["llama.context_length"] == 64
    assert "llama.attention.sliding_window" not in header.metadata


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (qwen3_moe(norm_topk_prob=False), "norm_topk_prob is false"),
        (qwen3_moe(norm_topk_prob=True, mlp_only_layers=[1]), "1 of 3 layers have no experts"),
        (gemma2(query_pre_attn_scalar=20), "query_pre_attn_scalar is 20"),
        (gpt2(scale_attn_by_inverse_layer_idx=True), "no GGUF form"),
        (DECODERS["gpt-neox-in-line"], "attention_bias is false"),
        (like_llama("gemma", tie_word_embeddings=False), "one matrix for both"),
        (llama(hidden_act="gelu"), "bends by 'gelu' but llama.cpp would take 'silu'"),
        (DECODERS["llama-dynamic"], "another way of stretching"),
    ],
)
def test_what_llama_cpp_would_do_otherwise_is_refused(fields, message):
    config = network_of(fields).config
    with pytest.raises(ValueError, match=message):
        find_family(config.family).write_gguf(config)  # type: ignore[attr-defined]
