"""Tiny models that are no transformers, as the fields of a config.json (see tests/families.py).

Those of OURS have no counterpart elsewhere; the contract tests run over both tables, the parity
tests over PUBLISHED.
"""

from typing import Any

from tests.families import VOCABULARY, Fields

SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}


def recurrent(cell: str, **changes: Any) -> Fields:
    """A recurrent network of three layers."""
    fields = {
        "model_type": "limner_recurrent",
        "cell": cell,
        "hidden_size": 30,
        "num_hidden_layers": 3,
    }
    return fields | SPECIAL | changes


def mamba(**changes: Any) -> Fields:
    """A Mamba of three layers."""
    fields = {
        "model_type": "mamba",
        "hidden_size": 36,
        "state_size": 5,
        "num_hidden_layers": 3,
        "use_associative_scan": False,
    }
    return fields | SPECIAL | changes


def mamba2(**changes: Any) -> Fields:
    """A Mamba-2 of three layers."""
    fields = {
        "model_type": "mamba2",
        "hidden_size": 36,
        "num_heads": 6,
        "head_dim": 12,
        "state_size": 5,
        "n_groups": 2,
        "num_hidden_layers": 3,
        "chunk_size": 8,
    }
    return fields | SPECIAL | changes


def rwkv(**changes: Any) -> Fields:
    """An RWKV-4 of three layers."""
    fields = {
        "model_type": "rwkv",
        "hidden_size": 36,
        "num_hidden_layers": 3,
        "context_length": 128,
    }
    return fields | SPECIAL | changes


def performer(**changes: Any) -> Fields:
    """A Performer of two layers."""
    fields = {
        "model_type": "limner_performer",
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "features": 20,
        "context": 128,
    }
    return fields | SPECIAL | changes


def fixed_window(**changes: Any) -> Fields:
    """A network that sees four tokens."""
    fields = {
        "model_type": "limner_fixed_window",
        "hidden_size": 20,
        "window": 4,
        "intermediate_size": 30,
    }
    return fields | SPECIAL | changes


PUBLISHED: dict[str, Fields] = {
    "mamba": mamba(),
    "mamba-biases": mamba(
        use_bias=True, conv_kernel=3, expand=3, time_step_rank=7, tie_word_embeddings=False
    ),
    "mamba-no-convolution-bias": mamba(use_conv_bias=False, layer_norm_epsilon=1e-3),
    "mamba2": mamba2(),
    "mamba2-biases": mamba2(
        use_bias=True,
        n_groups=1,
        expand=3,
        head_dim=18,
        use_conv_bias=False,
        time_step_limit=[0.01, 0.9],
        tie_word_embeddings=True,
    ),
    "rwkv": rwkv(),
    "rwkv-tied": rwkv(tie_word_embeddings=True, intermediate_size=50, layer_norm_epsilon=1e-3),
}

OURS: dict[str, Fields] = {
    "lstm": recurrent("lstm"),
    "lstm-tied": recurrent("lstm", tie_word_embeddings=True, head_bias=False, bias=False),
    "lstm-projection": recurrent("lstm", cell_size=44, projection=True),
    "lstm-narrow": recurrent("lstm", cell_size=22, residual=True),
    "gru": recurrent("gru"),
    "gru-wide": recurrent("gru", cell_size=50, bias=False),
    "rnn-tanh": recurrent("tanh"),
    "rnn-relu": recurrent("relu", residual=True, tie_word_embeddings=True),
    "performer": performer(),
    "performer-rotary": performer(
        rope_theta=10_000.0, attention_bias=True, features=8, tie_word_embeddings=False
    ),
    "fixed-window": fixed_window(),
    "fixed-window-direct": fixed_window(direct=True, window=1, tie_word_embeddings=True),
}
