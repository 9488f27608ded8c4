"""Predictors of further tokens equal transformers', and files without their weights open."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_layers import MtpModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.decoder import Decoder
from tests.decoder_families import deepseek
from tests.families import VOCABULARY

LAYERS = 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[PreTrainedModel, MtpModel, Path]:
    """A model, its two predictors, and the folder that holds both."""
    torch.manual_seed(0)
    fields = deepseek("deepseek_v3", num_nextn_predict_layers=2)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).eval()
    predictors = MtpModel(model, 2).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn_like(tensor) * 0.1)
        for tensor in predictors.state_dict().values():
            tensor.normal_(std=0.2)  # transformers leaves their experts uninitialised
    folder = tmp_path_factory.mktemp("ahead")
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | published(predictors), folder / "model.safetensors")
    return model, predictors, folder


def published(predictors: MtpModel) -> dict[str, torch.Tensor]:
    """The weights of predictors under the names that DeepSeek publishes."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in predictors.layers.state_dict().items():
        depth, _, rest = name.partition(".")
        place = f"model.layers.{LAYERS + int(depth)}."
        rest = rest.replace("post_norm", "shared_head.norm").removeprefix("mtp_block.")
        if rest.endswith("experts.gate_up_proj"):
            for number, both in enumerate(tensor):
                gate, up = both.chunk(2)
                expert = place + rest.replace("gate_up_proj", str(number))
                found |= {f"{expert}.gate_proj.weight": gate, f"{expert}.up_proj.weight": up}
        elif rest.endswith("experts.down_proj"):
            for number, down in enumerate(tensor):
                found[place + rest.replace("down_proj", f"{number}.down_proj.weight")] = down
        else:
            found[place + rest] = tensor
    return {name: tensor.clone().contiguous() for name, tensor in found.items()}


def opened(folder: Path) -> Decoder:
    """The network of a folder."""
    network = open_checkpoint(folder).network()
    assert isinstance(network, Decoder)
    return network


def some_tokens() -> torch.Tensor:
    """Random tokens."""
    return torch.randint(3, VOCABULARY, (2, 14), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_predictors_in_a_row_equal_the_reference(saved):
    model, predictors, folder = saved
    network, tokens = opened(folder), some_tokens()
    ours = network(tokens)
    theirs = model.model(tokens).last_hidden_state
    for depth in range(2):
        ours, theirs = ours[:, :-1], theirs[:, :-1]
        following = tokens[:, depth + 1 :]
        places = torch.arange(following.shape[1])[None] + depth + 1
        ours = network.ahead(ours, following, depth)
        theirs = predictors.forward_layer(depth, theirs, places, None, input_ids=following)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_predictors_survive_saving(saved, tmp_path):
    _, _, folder = saved
    network, tokens = opened(folder), some_tokens()
    save_folder(network, tmp_path)
    again = opened(tmp_path)
    assert len(again.predictors) == 2
    hidden = network(tokens)[:, :-1]
    assert torch.equal(network.ahead(hidden, tokens[:, 1:]), again.ahead(hidden, tokens[:, 1:]))


def test_gradient_flows_to_every_parameter_of_a_predictor(saved):
    network, tokens = opened(saved[2]).train(), some_tokens()
    further = network(tokens)[:, :-1]
    further = network.ahead(further, tokens[:, 1:])
    further = network.ahead(further[:, :-1], tokens[:, 2:], depth=1)
    network.head(further).logsumexp(-1).sum().backward()
    still = [name for name, p in network.predictors.named_parameters() if p.grad is None]  # type: ignore[attr-defined]
    assert still == []


@torch.no_grad()
def test_a_file_without_their_weights_opens_without_predictors(tmp_path):
    torch.manual_seed(0)
    fields = deepseek("deepseek_v3", num_nextn_predict_layers=1)  # as transformers saves
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).save_pretrained(tmp_path)
    network = opened(tmp_path)
    assert len(network.predictors) == 0
    assert network.config.predictors == ()
    assert not any(parameter.is_meta for parameter in network.parameters())


def test_a_file_with_some_of_their_weights_is_refused(saved, tmp_path):
    _, _, folder = saved
    weights = load_file(folder / "model.safetensors")
    del weights[f"model.layers.{LAYERS}.eh_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"no tensor for 'predictors\.0\.join\.weight'"):
        open_checkpoint(tmp_path).network()
