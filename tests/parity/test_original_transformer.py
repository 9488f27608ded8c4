"""The original transformer equals PyTorch's own, with the positions of the paper."""

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limner.checkpoints.checkpoint import open_checkpoint, save_folder

VOCABULARY, WIDTH = 97, 36
FIELDS = {
    "model_type": "limner_transformer",
    "d_model": WIDTH,
    "d_ff": 50,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40,
}


class Reference(nn.Module):
    """PyTorch's transformer between a table of token vectors and itself as the head."""

    def __init__(self, final_norm: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.transformer = nn.Transformer(WIDTH, 4, 3, 2, 50, dropout=0.0, batch_first=True)
        if not final_norm:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None

    def embed(self, tokens: Tensor) -> Tensor:
        """Section 3.5 of the paper: sines at even dimensions, cosines at odd ones."""
        encoding = torch.zeros(tokens.shape[1], WIDTH)
        for place in range(tokens.shape[1]):
            for pair in range(WIDTH // 2):
                angle = place / 10_000 ** (2 * pair / WIDTH)
                encoding[place, 2 * pair] = math.sin(angle)
                encoding[place, 2 * pair + 1] = math.cos(angle)
        return self.embedding(tokens) * math.sqrt(WIDTH) + encoding

    def forward(self, source: Tensor, padding: Tensor, target: Tensor) -> Tensor:
        """Logits of the target."""
        time = target.shape[1]
        hidden = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=torch.ones(time, time, dtype=torch.bool).triu(1),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return hidden @ self.embedding.weight.T


@pytest.mark.parametrize("final_norm", [False, True])
@torch.no_grad()
def test_logits_equal_pytorchs(final_norm, tmp_path):
    torch.manual_seed(0)
    reference = Reference(final_norm)  # in training, whose path is the plain one
    for parameter in reference.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    source, target = torch.randint(VOCABULARY, (2, 13)), torch.randint(VOCABULARY, (2, 9))
    mask = torch.arange(13) < torch.tensor([[13], [8]])
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(FIELDS | {"final_norm": final_norm}))
    network: Any = open_checkpoint(tmp_path).network()
    want = reference(source, ~mask, target)
    logits = network.logits(target, network.read(source, mask))
    torch.testing.assert_close(logits, want, atol=1e-5, rtol=1e-5)

    save_folder(network, tmp_path / "again")
    again = open_checkpoint(tmp_path / "again")
    assert again.config == network.config
    network = again.network()
    state = network.read(source, mask, network.new_cache(rows=2, capacity=9))
    stepped = [network.logits(token, state) for token in target.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(stepped, 1), want, atol=1e-5, rtol=1e-5)
