"""Adapters: small changes to a built network, read and written as the peft library does."""

from limner.peft.applying import Use, applied, merge, unmerge
from limner.peft.config import LoraConfig
from limner.peft.folder import is_adapter, read_adapter, write_adapter
from limner.peft.lora import Adapter, LowRank, new_adapter

__all__ = [
    "Adapter",
    "LoraConfig",
    "LowRank",
    "Use",
    "applied",
    "is_adapter",
    "merge",
    "new_adapter",
    "read_adapter",
    "unmerge",
    "write_adapter",
]
