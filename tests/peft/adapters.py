"""Random adapters for tests."""

from pathlib import Path

import torch

from limner.language_model import LanguageModel
from limner.peft import Adapter, LoraConfig, new_adapter, write_adapter


def random_adapter(network, config: LoraConfig, seed: int = 0, deviation: float = 0.3) -> Adapter:
    """An adapter that changes what the network says."""
    adapter = new_adapter(network, config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=deviation, generator=generator)
    return adapter


def write_random_adapter(
    model: LanguageModel, folder: Path, seed: int = 0, deviation: float = 0.3
) -> Path:
    """A folder with one."""
    adapter = random_adapter(model.network, LoraConfig("all-linear", rank=4), seed, deviation)
    write_adapter(adapter, folder)
    return folder
