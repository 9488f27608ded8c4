"""Files of llama2.c: written by hand from a tiny Llama, read back the same."""

import struct
from pathlib import Path

import pytest
import torch

from limner.checkpoints.checkpoint import open_checkpoint
from limner.models.decoder import Decoder
from limner.models.families import find_family, llama
from tests.families import llama as sample

ORDER = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
ORDER += ["ffn_norm", "ffn_gate", "ffn_down", "ffn_up"]
TOKENS = [
    "<unk>",
    "\n<s>\n",
    "\n</s>\n",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    " ",
    "a",
    " a",
]


def network(tied: bool) -> Decoder:
    """A tiny Llama with random weights."""
    torch.manual_seed(0)
    fields = sample(
        hidden_size=60,
        num_attention_heads=5,
        num_key_value_heads=1,
        vocab_size=len(TOKENS),
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        max_position_embeddings=32,
    )
    made = find_family("llama").read_config(fields).build()
    assert isinstance(made, Decoder)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.2)
    return made.eval()


def write(made: Decoder, path: Path) -> None:
    """The file that llama2.c's export would write, and its tokenizer beside it."""
    mine = dict(made.named_parameters(remove_duplicate=False))
    theirs: dict[str, torch.Tensor] = {}
    for rule in llama.gguf_translations(made.config):
        tensors = rule.save([mine[name].detach() for name in rule.ours])
        theirs |= dict(zip(rule.theirs, tensors, strict=True))
    layers = len(made.blocks)
    names = ["token_embd.weight"]
    names += [f"blk.{layer}.{name}.weight" for name in ORDER for layer in range(layers)]
    names.append("output_norm.weight")
    parts = [theirs[name] for name in names] + [torch.zeros(2, 32, 6)]
    untied = "output.weight" in theirs
    parts += [theirs["output.weight"]] if untied else []
    vocabulary = -len(TOKENS) if untied else len(TOKENS)
    header = struct.pack("<7i", 60, 100, layers, 5, 1, vocabulary, 32)
    path.write_bytes(header + b"".join(part.contiguous().numpy().tobytes() for part in parts))
    pieces = b"".join(
        struct.pack("<fi", -float(number), len(token.encode())) + token.encode()
        for number, token in enumerate(TOKENS)
    )
    path.with_name("tokenizer.bin").write_bytes(struct.pack("<i", 8) + pieces)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_file_reads_back_the_same(tied, tmp_path):
    made = network(tied)
    write(made, tmp_path / "model.bin")
    again = open_checkpoint(tmp_path / "model.bin").network()
    assert isinstance(again, Decoder)
    tokens = torch.randint(3, 250, (2, 9))
    torch.testing.assert_close(again.logits(tokens), made.logits(tokens))


def test_the_tokenizer_beside_it_is_found(tmp_path):
    write(network(tied=True), tmp_path / "model.bin")
    tokenizer = open_checkpoint(tmp_path / "model.bin").tokenizer()
    ids = tokenizer.encode("a a!")
    assert ids[0] == tokenizer.bos_id == 1
    assert [tokenizer.token(token) for token in ids[1:]] == ["\u2581a", "\u2581a", "<0x21>"]
    assert tokenizer.decode(ids) == "a a!"


def test_a_file_that_is_cut_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model.bin"
    write(network(tied=True), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"model\.bin") as refused:
        open_checkpoint(path)
    assert "\n" not in str(refused.value)
