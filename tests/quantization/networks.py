"""Tiny networks that can be rounded in groups of 32, and texts for them."""

import torch

from limner.models.families import find_family
from tests.families import VOCABULARY, llama


def tiny(model_type: str = "llama", **changes):
    """A random network whose numbers are halves, as they are when a folder is written."""
    fields = llama(hidden_size=64, intermediate_size=96, num_attention_heads=4, head_dim=16)
    fields |= {"num_key_value_heads": 2} | changes | {"model_type": model_type}
    network = find_family(model_type).read_config(fields).build()
    network.initialise(0.05, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():
            # Channels of different size, as trained networks have them.
            sizes = (
                torch.rand(parameter.shape[-1], generator=torch.Generator().manual_seed(1)) + 0.1
            )
            parameter.copy_((parameter * sizes * 2).half())
    return network.eval()


def texts(rows: int = 6, length: int = 40):
    """Token ids, a row each."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(VOCABULARY, (1, length), generator=generator) for _ in range(rows)]


def correlated(rows: int, width: int):
    """Inputs (rows, width) whose numbers depend on one another and differ in size."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    sizes = torch.rand(width, generator=generator) * 3
    return torch.randn(rows, width, generator=generator) @ mixing * sizes
