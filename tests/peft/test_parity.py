"""Adapters that the peft library saved are read by us, and ours by it: equal logits."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.network import Network
from limner.peft import (
    LoraConfig,
    Use,
    applied,
    merge,
    new_adapter,
    read_adapter,
    unmerge,
    write_adapter,
)
from tests.families import gpt2, llama

# peft asks transformers 5.23 for an attribute by its old name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

TOKENS = torch.tensor([[5, 17, 3, 88, 41, 2, 60], [9, 9, 30, 31, 1, 77, 12]])

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": llama(),
    "llama-tied": llama(tie_word_embeddings=True),
    "gpt2": gpt2(),
    "qwen2": llama(model_type="qwen2"),
    "qwen3": llama(model_type="qwen3"),
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 60,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "max_position_embeddings": 128,
        "vocab_size": 97,
    },
    "phi3": llama(model_type="phi3", pad_token_id=0),
}

SETTINGS: dict[str, dict[str, Any]] = {
    "all": {"target_modules": "all-linear", "r": 3, "lora_alpha": 7},
    "stabilised": {"target_modules": "all-linear", "use_rslora": True, "r": 5},
    "layers": {"target_modules": ["q_proj", "c_attn", "query_key_value", "qkv_proj"], "r": 4,
               "layers_to_transform": [0, 2]},
    "regex": {"target_modules": r".*\.[12]\..*(down_proj|c_proj|dense_4h_to_h)"},
    "patterns": {"target_modules": "all-linear", "r": 4, "lora_alpha": 16,
                 "rank_pattern": {"down_proj": 2, r"h\.1\.attn\.c_attn": 6},
                 "alpha_pattern": {"layers.2.mlp.down_proj": 9}},
}  # fmt: skip


def pair(folder: Path, family: str) -> tuple[Any, Network]:
    """A random model of transformers, and ours of the same weights."""
    torch.manual_seed(0)
    fields = dict(FAMILIES[family])
    config = transformers.AutoConfig.for_model(**fields)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(folder)
    return theirs, open_checkpoint(folder).network()


def randomise(model: torch.nn.Module) -> None:
    """Let an adapter of peft's change something."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)


@torch.inference_mode()
def logits(network: Any, adapter: Any = None) -> torch.Tensor:
    """Ours."""
    with applied(network, [] if adapter is None else [Use(adapter)]):
        return network.logits(TOKENS)


@torch.inference_mode()
def their_logits(model: Any) -> torch.Tensor:
    """Those of transformers."""
    return model(TOKENS).logits


#: Every family once, every setting on two.
CASES = [(family, "all") for family in FAMILIES] + [
    (family, settings) for family in ("llama", "gpt2") for settings in SETTINGS if settings != "all"
]


@pytest.mark.parametrize(("family", "settings"), CASES)
def test_an_adapter_of_peft_answers_the_same_here(family: str, settings: str, tmp_path: Path):
    theirs, ours = pair(tmp_path / "model", family)
    plain = logits(ours)
    adapted = peft.get_peft_model(
        theirs, peft.LoraConfig(task_type="CAUSAL_LM", **SETTINGS[settings])
    )
    randomise(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = their_logits(adapted)
    adapter = read_adapter(ours, tmp_path / "adapter")
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(logits(ours, adapter), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(ours, adapter.pack()), expected, rtol=0, atol=1e-5)
    assert torch.equal(logits(ours), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_ours_answers_the_same_in_peft(family: str, tmp_path: Path):
    theirs, ours = pair(tmp_path / "model", family)
    config = LoraConfig("all-linear", rank=3, alpha=5, stabilised=True, ranks={"down_proj": 2})
    adapter = new_adapter(ours, config)
    assert torch.equal(logits(ours, adapter), logits(ours))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    write_adapter(adapter, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(ours, adapter), their_logits(adapted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_merged_adapter_answers_the_same_and_can_be_taken_back(family: str, tmp_path: Path):
    _, ours = pair(tmp_path / "model", family)
    plain = logits(ours)
    adapter = new_adapter(ours, LoraConfig("all-linear"))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    expected = logits(ours, adapter)
    merge(ours, adapter)
    torch.testing.assert_close(logits(ours), expected, rtol=0, atol=1e-5)
    save_folder(ours, tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(their_logits(merged), expected, rtol=0, atol=1e-5)
    unmerge(ours, adapter)
    torch.testing.assert_close(logits(ours), plain, rtol=0, atol=1e-5)
