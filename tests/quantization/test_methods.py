import pytest
import torch
from torch import nn

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.checkpoints.quantized import FLOAT8_GRID, Grid, OutlierWeight
from limner.models.families import find_family
from limner.nn.packed import PackedLinear
from limner.nn.scaled import ScaledLinear
from limner.quantization.layerwise import Walk, watch
from limner.quantization.methods import Method, layers_to_quantize, quantize_network
from limner.quantization.outliers import OutlierLinear
from limner.quantization.rounding import round_to_nearest
from tests.families import t5
from tests.quantization.networks import texts, tiny

LAYERS = ["query", "key", "value", "output", "gate", "up", "down"]


def divergence(network, changed, rows):
    """Mean KL of the changed network's next tokens from those of the first."""
    before, after = (torch.cat([n.logits(row) for row in rows]) for n in (network, changed))
    before, after = before.log_softmax(-1), after.log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1).mean().item()


def test_every_layer_of_a_block_is_rounded_and_nothing_else():
    network = tiny()
    weights = quantize_network(network, Method("rtn", Grid()))
    assert len(weights) == 3 * 7
    assert {name.rpartition(".")[2] for name in weights} == set(LAYERS)
    packed = [n for n, module in network.named_modules() if isinstance(module, PackedLinear)]
    assert sorted(packed) == sorted(weights)
    assert type(network.head.output) is nn.Linear


def test_routers_and_odd_widths_keep_their_floats():
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    names = layers_to_quantize(tiny("qwen3_moe", **experts))
    assert {name.rpartition(".")[2] for name in names} == {"query", "key", "value", "output"}
    names = layers_to_quantize(tiny(intermediate_size=80))
    assert not any(name.endswith("down") for name in names)


def test_a_network_of_two_stacks_can_be_rounded_to_nearest_only():
    config = find_family("t5").read_config(t5(d_model=64, d_kv=16, d_ff=96, num_heads=4))
    network = config.build()
    network.initialise()
    with pytest.raises(ValueError, match="cannot be calibrated: use method=rtn"):
        quantize_network(network, Method("gptq", Grid()), texts())
    weights = quantize_network(network, Method("rtn", Grid()))
    assert any(name.startswith("encoder.") for name in weights)
    assert any(name.startswith("decoder.") for name in weights)


@pytest.mark.parametrize("name", ["gptq", "awq"])
def test_calibrated_methods_beat_rounding_to_nearest(name):
    network, rows = tiny(), texts(24)
    nearest, ours = tiny(), tiny()
    grid = Grid(4, None)
    quantize_network(nearest, Method("rtn", grid))
    quantize_network(ours, Method(name, grid), rows)
    assert divergence(network, ours, rows) < divergence(network, nearest, rows)


def test_floats_of_8_bits_are_near_the_network_and_need_no_texts():
    network, changed, rows = tiny(attention_bias=True), tiny(attention_bias=True), texts()
    method = Method("fp8", FLOAT8_GRID)
    assert not method.needs_texts
    weights = quantize_network(changed, method)
    assert len(weights) == 3 * 7
    assert isinstance(changed.blocks[1].feedforward.down, ScaledLinear)
    assert all(8 < weight.stored_bits / weight.numbers < 8.6 for weight in weights.values())
    assert 0 < divergence(network, changed, rows) < 0.01


def test_weights_that_are_no_numbers_are_refused_as_floats_of_8_bits():
    network = tiny()
    with torch.no_grad():
        network.blocks[1].mixer.query.weight[3, 4] = torch.inf
    with pytest.raises(ValueError, match="holds infinities or NaN"):
        quantize_network(network, Method("fp8", FLOAT8_GRID))


def test_outlier_layers_take_the_place_of_linear_ones():
    network, rows = tiny(attention_bias=True), texts()
    expected = network.logits(rows[0])
    weights = quantize_network(network, Method("outliers", Grid(8, 32, True), threshold=1.0), rows)
    assert any(len(w.columns) for w in weights.values() if isinstance(w, OutlierWeight))
    assert isinstance(network.blocks[1].feedforward.down, OutlierLinear)
    torch.testing.assert_close(network.logits(rows[0]), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize("grid", [Grid(), Grid(8)], ids=["packed", "float"])
def test_a_checkpoint_gives_the_same_network_after_one_was_rounded(tmp_path, name, grid):
    save_folder(tiny(), tmp_path)
    checkpoint, rows = open_checkpoint(tmp_path), texts()
    first = checkpoint.network()
    before = {key: value.detach().clone() for key, value in first.named_parameters()}
    quantize_network(first, Method(name, grid), rows)
    again = dict(checkpoint.network().named_parameters())
    assert all(torch.equal(again[key], value) for key, value in before.items())
    norms = [key for key in before if key.endswith("before.weight")]
    kept = all(torch.equal(first.get_parameter(key), before[key]) for key in norms)
    assert kept == (name != "awq")


def test_progress_counts_blocks():
    calls = []
    method = Method("gptq", Grid())
    quantize_network(tiny(), method, texts(), lambda *count: calls.append(count))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_walk_meets_the_inputs_of_the_whole_network():
    network, rows = tiny(), texts(3)
    met = []
    for block in network.blocks:
        block.feedforward.down.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0]))
    for row in rows:
        network.logits(row)
    expected = torch.cat([tensor.flatten(0, 1) for tensor in met[2::3]])  # of the last block
    walk, found = Walk(network, rows), {}
    for name, block in walk:
        found[name] = {tuple(seen.layers): seen for seen in watch(block, walk.inputs)}
    seen = found["blocks.2"]["feedforward.down",]
    torch.testing.assert_close(seen.hessian, expected.T @ expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen.peak, expected.abs().amax(0))
    torch.testing.assert_close(seen.magnitude / seen.count, expected.abs().mean(0))
    shared = found["blocks.0"]["mixer.query", "mixer.key", "mixer.value"]
    assert shared.norm == "mix.before"


def test_later_blocks_are_calibrated_on_what_rounded_ones_make():
    network, rows = tiny(), texts(2)
    walk, second = Walk(network, rows), None
    for name, block in walk:
        if name == "blocks.1":
            second = walk.inputs[0][0]
            break
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.zero_()
    torch.testing.assert_close(second, network.embedding.tokens(rows[0]))


def test_groups_that_do_not_fit_are_refused_before_anything_is_done():
    network = tiny()
    with pytest.raises(ValueError, match="groups of 64 do not divide 96 inputs"):
        quantize_network(network, Method("rtn", Grid(4, 64)))
    assert type(network.blocks[0].mixer.query) is nn.Linear
    weight = network.blocks[0].mixer.query.weight
    assert round_to_nearest(weight, Grid(4, 64)).group == 64
