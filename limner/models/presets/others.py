"""Published shapes of state-space and recurrent models, as the fields of their config.json."""

from __future__ import annotations

from typing import Any

OTHERS: dict[str, dict[str, Any]] = {
    "mamba-130m": {
        "model_type": "mamba",
        "hidden_size": 768,
        "num_hidden_layers": 24,
        "state_size": 16,
        "vocab_size": 50280,
    },
    "mamba2-130m": {
        "model_type": "mamba2",
        "hidden_size": 768,
        "num_hidden_layers": 24,
        "num_heads": 24,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
        "expand": 2,
        "vocab_size": 50288,
        "tie_word_embeddings": True,
    },
    "rwkv-4-169m": {
        "model_type": "rwkv",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "vocab_size": 50277,
        "context_length": 1024,
    },
}
