"""The tensors of GGUF files, from what a config is made of.

llama.cpp names parts alike in all architectures; some it fuses, reorders or shifts.
"""

from __future__ import annotations

from collections.abc import Iterator

from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import attention_of
from limner.models.translation import (
    Translation,
    interleaved_rows,
    renamed,
    shifted,
    split,
)
from limner.nn.attention import AttentionConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import MixtureConfig
from limner.nn.norms import NormConfig

NORMS = {
    "attn_norm": ("mix", "before"),
    "post_attention_norm": ("mix", "inside"),
    "ffn_norm": ("feed", "before"),
    "post_ffw_norm": ("feed", "inside"),
}
INPUTS = {"attn_q": "query", "attn_k": "key", "attn_v": "value"}
FEEDFORWARD = {"ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down"}
MIXTURE = {
    "ffn_gate_inp.weight": "router.score.weight",
    "ffn_gate_exps.weight": "experts.gate",
    "ffn_up_exps.weight": "experts.up",
    "ffn_down_exps.weight": "experts.down",
}


def tensors_of(
    config: DecoderConfig, *, fused: bool = False, permuted: bool = False
) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes.

    `fused` architectures keep query, key and value in one tensor, and the gate with what it gates;
    `permuted` ones keep the rows of rotary pairs side by side (see `interleaved_rows`).
    """
    yield from _stem(config)
    for layer, block in enumerate(config.blocks):
        place, ours = f"blk.{layer}", f"blocks.{layer}"
        for name, (step, part) in NORMS.items():
            norm = getattr(getattr(block, step), part)
            yield from _norm(norm, f"{place}.{name}", f"{ours}.{step}.{part}")
        attention = attention_of(block)
        inputs = _fused_inputs if fused else _inputs
        yield from inputs(attention, place, f"{ours}.mixer", permuted)
        yield from _linear(attention.output_bias, f"{place}.attn_output", f"{ours}.mixer.output")
        yield from _norm(attention.head_norm, f"{place}.attn_q_norm", f"{ours}.mixer.query_norm")
        yield from _norm(attention.head_norm, f"{place}.attn_k_norm", f"{ours}.mixer.key_norm")
        yield from _feedforward(block, place, f"{ours}.feedforward", fused)


def _stem(config: DecoderConfig) -> Iterator[Translation]:
    names = {"token_embd.weight": "embedding.tokens.weight"}
    if config.embedding.learned_positions:
        names["position_embd.weight"] = "embedding.positions.weight"
    if not config.head.tied:
        names["output.weight"] = "head.output.weight"
    yield from renamed(names, 1)
    yield from _norm(config.embedding.norm, "token_embd_norm", "embedding.norm")
    yield from _norm(config.norm, "output_norm", "norm")


def _norm(norm: NormConfig | None, theirs: str, ours: str) -> Iterator[Translation]:
    """A norm's gain, whole in the file where we keep it minus one (Gemma), and its bias."""
    if norm is None:
        return
    gain = {f"{theirs}.weight": f"{ours}.weight"}
    yield from shifted(gain, 1.0) if norm.unit_offset else renamed(gain, 1)
    if norm.kind == "layer" and norm.bias:
        yield from renamed({f"{theirs}.bias": f"{ours}.bias"}, 1)


def _linear(bias: bool, theirs: str, ours: str) -> Iterator[Translation]:
    for kind in ("weight", "bias") if bias else ("weight",):
        yield Translation((f"{theirs}.{kind}",), (f"{ours}.{kind}",))


def _inputs(
    config: AttentionConfig, place: str, ours: str, permuted: bool
) -> Iterator[Translation]:
    heads = {"query": config.heads, "key": config.key_value_heads}
    for theirs, part in INPUTS.items():
        for kind in ("weight", "bias") if config.query_bias else ("weight",):
            names = f"{place}.{theirs}.{kind}", f"{ours}.{part}.{kind}"
            if permuted and part in heads:
                yield interleaved_rows(*names, heads[part])
            else:
                yield from renamed(dict([names]), 1)


def _fused_inputs(
    config: AttentionConfig, place: str, ours: str, permuted: bool
) -> Iterator[Translation]:
    assert not permuted
    keys = config.key_value_heads * config.head_width
    for kind in ("weight", "bias") if config.query_bias else ("weight",):
        parts = [f"{ours}.{part}.{kind}" for part in INPUTS.values()]
        sizes = [config.heads * config.head_width, keys, keys]
        yield split(f"{place}.attn_qkv.{kind}", parts, sizes)


def _feedforward(block: BlockConfig, place: str, ours: str, fused: bool) -> Iterator[Translation]:
    feed = block.feedforward
    if isinstance(feed, MixtureConfig):
        names = {f"{place}.{theirs}": f"{ours}.{part}" for theirs, part in MIXTURE.items()}
        yield from renamed(names, 1)
        return
    assert isinstance(feed, FeedForwardConfig)
    if fused and feed.gated:
        parts = [f"{ours}.gate.weight", f"{ours}.up.weight"]
        yield split(f"{place}.ffn_up.weight", parts, [feed.width] * 2)
        yield from renamed({f"{place}.ffn_down.weight": f"{ours}.down.weight"}, 1)
        return
    for theirs, part in FEEDFORWARD.items():
        if feed.gated or part != "gate":
            yield from _linear(feed.bias, f"{place}.{theirs}", f"{ours}.{part}")
