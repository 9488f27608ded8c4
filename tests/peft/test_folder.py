"""Adapter folders that limner refuses, and what it says."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from limner.models.families import find_family
from limner.nn.packed import pack_layers
from limner.peft import LoraConfig, merge, new_adapter, read_adapter, write_adapter
from tests.families import gpt2, llama
from tests.peft.adapters import random_adapter


def built(fields):
    """A random network."""
    torch.manual_seed(0)
    network = find_family(fields["model_type"]).read_config(fields).build().eval()
    network.initialise(0.2)
    return network


@pytest.fixture
def network():
    return built(llama())


@pytest.fixture
def folder(network, tmp_path):
    write_adapter(random_adapter(network, LoraConfig(("q_proj", "down_proj"), 3)), tmp_path)
    return tmp_path


def change(folder, **fields):
    """Say something else in an adapter's config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "use_dora: limner does not read DoRA yet"),
        ({"peft_type": "IA3"}, "an adapter of the kind IA3: limner reads LORA"),
        ({"bias": "lora_only"}, "sets bias to 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save: limner does not support that"),
        ({"init_lora_weights": "pissa"}, "sets init_lora_weights to 'pissa'"),
        ({"target_parameters": ["experts.gate"]}, "sets target_parameters"),
        ({"layer_replication": [[0, 2]]}, "sets layer_replication"),
        ({"r": 5}, r"has shape \(3, 60\), but the adapter's config and the model say \(5, 60\)"),
        ({"r": 0}, "rank must be 1 or more, not 0"),
        ({"r": "many"}, "adapter_config.json"),
        (
            {"target_modules": ["q_proj"]},
            "changes 'model.layers.0.mlp.down_proj', which its config",
        ),
        (
            {"target_modules": ["q_proj", "k_proj", "down_proj"]},
            "lacks 'model.layers.0.self_attn.k_proj', which its config names",
        ),
        ({"target_modules": "(q_proj"}, r"'\(q_proj' is no regular expression"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(network, folder, fields, said):
    change(folder, **fields)
    with pytest.raises(ValueError, match=said) as caught:
        read_adapter(network, folder)
    assert "\n" not in str(caught.value)


def test_an_adapter_for_another_model_is_refused(folder):
    with pytest.raises(ValueError, match="q_proj', which this model does not have"):
        read_adapter(built(gpt2()), folder)
    with pytest.raises(ValueError, match="it is for another model, or damaged"):
        read_adapter(built(llama(intermediate_size=90)), folder)
    with pytest.raises(ValueError, match=r"changes 'model.layers.2.*', which this model does not"):
        read_adapter(built(llama(num_hidden_layers=2)), folder)


def test_tensors_that_are_none_of_loras_are_refused(network, folder):
    path = folder / "adapter_model.safetensors"
    extra = {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(3, 97)}
    save_file(load_file(path) | extra, path)
    with pytest.raises(
        ValueError, match=r"embed_tokens.lora_embedding_A', which is none of a LoRA"
    ):
        read_adapter(network, folder)


def test_a_folder_without_an_adapter_says_what_is_missing(network, folder):
    path = folder / "adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ValueError, match="is pickled"):
        read_adapter(network, folder)
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match="the adapter has no weights"):
        read_adapter(network, folder)
    with pytest.raises(FileNotFoundError, match="no adapter at"):
        read_adapter(network, folder / "nowhere")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="this is no adapter of peft's"):
        read_adapter(network, folder)


def test_layers_that_are_read_or_fused_are_refused():
    mixture = built(llama(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2))
    with pytest.raises(ValueError, match=r"targets \('gate',\) name no module of this model"):
        new_adapter(mixture, LoraConfig(("gate",)))


def test_writing_beside_a_model_leaves_the_model(network, folder):
    (folder / "model.safetensors").write_bytes(b"mine")
    before = (folder / "adapter_model.safetensors").read_bytes()
    write_adapter(random_adapter(network, LoraConfig(("q_proj", "down_proj"), 3), 9), folder)
    assert (folder / "model.safetensors").read_bytes() == b"mine"
    assert (folder / "adapter_model.safetensors").read_bytes() != before
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "model.safetensors",
    ]  # fmt: skip


def test_an_adapter_reads_back_as_it_was_written(network, tmp_path):
    config = LoraConfig(
        r".*\.(q|v)_proj", 4, 12, stabilised=True, ranks={"q_proj": 2}, alphas={"v_proj": 1.5},
        excludes=("layers.1.self_attn.v_proj",), dropout=0.1, base="somebody/model",
    )  # fmt: skip
    adapter = random_adapter(network, config)
    write_adapter(adapter, tmp_path)
    again = read_adapter(network, tmp_path)
    assert again.config == config
    assert again.names == adapter.names
    assert len(again.names) == 5
    for one, other in zip(again.parameters(), adapter.parameters(), strict=True):
        assert torch.equal(one, other)


def test_merging_where_it_cannot_be_is_refused(network):
    tied = built(llama(tie_word_embeddings=True))
    adapter = new_adapter(network, LoraConfig(("lm_head", "q_proj")))
    with pytest.raises(ValueError, match=r"'head\.output' shares its weight with embedding"):
        merge(tied, adapter)
    pack_layers(network, "int8")
    with pytest.raises(ValueError, match="is packed for kernels and cannot be added to"):
        merge(network, adapter)
