import pytest
import torch

from limner.checkpoints.quantized import Grid
from limner.quantization.awq import round_clipped, search_scales
from limner.quantization.clipping import damage
from limner.quantization.folding import find_fold, fold_scales
from limner.quantization.layerwise import Walk, watch
from limner.quantization.rounding import round_to_nearest
from tests.quantization.networks import correlated, texts, tiny

SAMPLES = {
    "llama": {},
    "llama-multi-head": {"num_key_value_heads": 4},
    "llama-biases": {"attention_bias": True, "mlp_bias": True},
    "gemma": {},
    "stablelm": {"layer_norm_eps": 1e-5, "use_qkv_bias": True},
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_folded_scales_change_no_output(sample):
    network = tiny(sample.partition("-")[0], **SAMPLES[sample])
    tokens = texts(1)[0]
    before, folded = network.logits(tokens), []
    walk = Walk(network, texts())
    for _, block in walk:
        for seen in watch(block, walk.inputs):
            fold = find_fold(block, seen)
            if fold is not None:
                numbers = torch.rand(len(seen.magnitude)) + 0.3
                scale = fold.together(numbers)
                if fold_scales(block, fold, seen.layers, scale, walk.inputs[0]):
                    folded += seen.layers
    torch.testing.assert_close(network.logits(tokens), before, atol=1e-4, rtol=1e-4)
    ends = {name.rpartition(".")[2] for name in folded}
    assert ends >= {"output", "down", "query", "key", "value", "up", "gate"}


def test_scales_are_put_back_where_something_else_reads_the_input():
    network = tiny("bloom", n_head=4, n_layer=2, apply_residual_connection_post_layernorm=True)
    walk = Walk(network, texts())
    _, block = next(iter(walk))
    seen = watch(block, walk.inputs)[0]
    fold = find_fold(block, seen)
    assert fold is not None
    before = {name: value.clone() for name, value in block.state_dict().items()}
    scale = torch.rand(len(seen.magnitude)) + 0.3
    assert not fold_scales(block, fold, seen.layers, scale, walk.inputs[0])
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_damage_is_what_outputs_move():
    inputs, change = correlated(50, 64), torch.randn(3, 64)
    expected = (inputs @ change.T).square().sum().item()
    assert damage(change, inputs.T @ inputs) == pytest.approx(expected, rel=1e-4)


def test_searched_scales_and_clips_move_outputs_less_than_none():
    inputs, grid = correlated(800, 64), Grid(4, 32)
    inputs[:, :4] *= 20  # the channels that AWQ is there for
    hessian, sizes = inputs.T @ inputs, inputs.abs().mean(0)
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    scale = search_scales([weight], hessian, sizes, grid)
    scaled = round_to_nearest(weight * scale, grid).dequantize() / scale
    clipped = round_clipped(weight, hessian.diagonal(), grid).dequantize()
    nearest = round_to_nearest(weight, grid).dequantize()
    assert damage(scaled - weight, hessian) < 0.6 * damage(nearest - weight, hessian)
    alone = hessian.diagonal().diag()
    assert damage(clipped - weight, alone) < 0.9 * damage(nearest - weight, alone)
