"""Families that have no format elsewhere keep their own, and open PyTorch's recurrent modules."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.families import find_family
from tests.families import VOCABULARY
from tests.recurrent_families import OURS

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def some_tokens(rows: int = 2, time: int = 25) -> Tensor:
    """Random tokens."""
    return torch.randint(VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_a_folder_gives_the_same_model_back(name, tmp_path):
    network: Any = find_family(OURS[name]["model_type"]).read_config(OURS[name]).build()
    network.initialise(generator=torch.Generator().manual_seed(3))
    for buffer in network.buffers():  # not those that a config alone would give
        buffer.mul_(1.1)
    save_folder(network, tmp_path)
    again: Any = open_checkpoint(tmp_path)
    assert again.config == network.config
    assert torch.equal(again.network().logits(some_tokens()), network.eval().logits(some_tokens()))


class Plain(nn.Module):
    """A recurrent language model as PyTorch's users write it."""

    def __init__(self, rnn: nn.RNNBase, width: int, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.rnn = rnn
        self.head = nn.Linear(width, VOCABULARY)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


def opened(plain: Plain, folder: Path, **fields: object) -> Any:
    """The same model, opened by limner from a folder that holds its state."""
    tied = plain.head.weight is plain.embedding.weight
    state = {n: t for n, t in plain.state_dict().items() if not (tied and n == "head.weight")}
    save_file(state, folder / "model.safetensors")
    fields |= {
        "model_type": "limner_recurrent",
        "hidden_size": plain.embedding.embedding_dim,
        "num_hidden_layers": plain.rnn.num_layers,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return open_checkpoint(folder).network()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh", "relu"])
@torch.no_grad()
def test_it_equals_pytorch(cell, layers, tied, tmp_path):
    kinds = {
        "lstm": lambda: nn.LSTM(20, 20, layers, batch_first=True),
        "gru": lambda: nn.GRU(20, 20, layers, batch_first=True),
        "tanh": lambda: nn.RNN(20, 20, layers, batch_first=True),
        "relu": lambda: nn.RNN(20, 20, layers, nonlinearity="relu", batch_first=True),
    }
    torch.manual_seed(0)
    plain = Plain(kinds[cell](), 20, tied)
    network, tokens = opened(plain, tmp_path, cell=cell), some_tokens()
    torch.testing.assert_close(network.logits(tokens), plain(tokens), **CLOSE)
    cache = network.new_cache(rows=2, capacity=30)
    steps = [network.logits(step, cache) for step in tokens.split([9, 1, 1, 14], dim=1)]
    torch.testing.assert_close(torch.cat(steps, 1), plain(tokens), **CLOSE)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_equals_pytorch(tmp_path):
    torch.manual_seed(0)
    plain = Plain(nn.LSTM(20, 33, 2, batch_first=True, proj_size=20), 20, tied=True)
    network = opened(plain, tmp_path, cell="lstm", cell_size=33, projection=True)
    torch.testing.assert_close(network.logits(some_tokens()), plain(some_tokens()), **CLOSE)


def test_a_setting_that_cannot_be_is_refused():
    read = find_family("limner_recurrent").read_config
    fields = {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 9}
    with pytest.raises(ValueError, match="no recurrent layer is called 'lmts'"):
        read(fields | {"cell": "lmts"})
    with pytest.raises(ValueError, match="a 'gru' layer has no projection"):
        read(fields | {"cell": "gru", "projection": True, "cell_size": 9})


@torch.no_grad()
def test_a_fixed_window_sees_so_many_tokens_and_no_more():
    network: Any = find_family("limner_fixed_window").read_config(OURS["fixed-window"]).build()
    tokens = some_tokens(1)
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % VOCABULARY
    differs = (network.logits(tokens) != network.logits(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [10, 11, 12, 13]
