"""GGUF files as gguf-py, transformers and we ourselves read them; llama.cpp: tests/parity."""

import logging
import tracemalloc

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from limner.checkpoints.checkpoint import open_checkpoint
from limner.checkpoints.gguf_pooling import read_pooling, write_pooling
from limner.checkpoints.gguf_writing import FORMATS, save_gguf
from limner.models.encoder import Encoder
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.families import find_family
from limner.models.sentence import DenseConfig, NormalizeConfig, PoolingConfig
from tests.families import bert, llama, t5
from tests.tokenizers.samples import byte_level, wordpiece

ROUND = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4, "intermediate_size": 96}
T5 = {"relative_attention_max_distance": 128}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def network_of(fields, scale=0.2):
    """A tiny network with random weights."""
    torch.manual_seed(0)
    network = find_family(fields["model_type"]).read_config(fields).build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=scale)
    return network.eval()


def read_back(path):
    """Each tensor as gguf-py reads it: its format and its numbers."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            gguf.quants.dequantize(tensor.data, tensor.tensor_type),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


#: The largest error of a weight, as a share of the largest weight of its block.
ERRORS = {
    "F32": 0.0,
    "F16": 2**-11,
    "BF16": 2**-8,
    "Q8_0": 0.005,
    "Q5_1": 0.035,
    "Q5_0": 0.07,
    "Q4_1": 0.07,
    "Q4_0": 0.13,
}


@pytest.mark.parametrize("format", FORMATS)
def test_weights_are_as_near_as_the_format_allows(format, tmp_path):
    network = network_of(llama(**ROUND))
    save_gguf(network, tmp_path / "model.gguf", None, format)
    save_gguf(network, tmp_path / "exact.gguf", None, "F32")
    exact, found = read_back(tmp_path / "exact.gguf"), read_back(tmp_path / "model.gguf")
    assert found.keys() == exact.keys()
    ours = open_checkpoint(tmp_path / "model.gguf").source
    for name, (kind, numbers) in found.items():
        wanted = exact[name][1]
        if "norm" in name:
            assert kind == "F32"
            np.testing.assert_array_equal(numbers, wanted)
            continue
        assert kind == ("Q8_0" if name == "output.weight" and format[0] == "Q" else format)
        largest = np.abs(wanted.reshape(-1, 32)).max(1, keepdims=True)
        assert (np.abs(numbers - wanted).reshape(-1, 32) <= ERRORS[format] * largest).all()
        np.testing.assert_array_equal(ours.read(name).numpy(), numbers)


def test_rows_that_no_block_divides_are_half_precision(tmp_path):
    save_gguf(network_of(llama()), tmp_path / "model.gguf", None, "Q4_0")
    assert {kind for kind, _ in read_back(tmp_path / "model.gguf").values()} == {"F32", "F16"}


def test_a_tied_table_is_as_fine_as_the_output(tmp_path):
    fields = llama(tie_word_embeddings=True, **ROUND)
    save_gguf(network_of(fields), tmp_path / "model.gguf", None, "Q4_0")
    found = read_back(tmp_path / "model.gguf")
    assert found["token_embd.weight"][0] == "Q8_0"
    assert found["blk.0.ffn_up.weight"][0] == "Q4_0"
    assert "output.weight" not in found


@pytest.mark.parametrize("changes", [{}, GATED])
@torch.inference_mode()
def test_t5_reads_back_the_same(changes, tmp_path):
    network = network_of(t5(**T5, **changes))
    save_gguf(network, tmp_path / "model.gguf", None, "F32")
    again = open_checkpoint(tmp_path / "model.gguf").network()
    assert isinstance(again, EncoderDecoder)
    assert (again.config.start, again.config.padding) == (0, 0)
    assert again.decoder.config.head == network.decoder.config.head
    source, target = torch.randint(3, 90, (2, 19)), torch.randint(3, 90, (2, 7))
    ours, theirs = (model.logits(target, model.read(source)) for model in (network, again))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_transformers_reads_t5(tmp_path):
    network = network_of(t5(**T5, **GATED))
    save_gguf(network, tmp_path / "model.gguf", None, "F32")
    config = AutoConfig.for_model(**find_family("t5").write_config(network.config))
    model = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", config=config
    ).eval()
    source, target = torch.randint(3, 90, (2, 19)), torch.randint(3, 90, (2, 7))
    logits = model(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(
        logits, network.logits(target, network.read(source)), atol=1e-4, rtol=1e-4
    )


@torch.inference_mode()
def test_bert_reads_back_the_same_without_its_heads(tmp_path, caplog):
    network = network_of(bert(vocab_size=600))
    save_gguf(network, tmp_path / "model.gguf", wordpiece(), "F32")
    assert "no place for heads: without masked, next_sentence" in caplog.text
    opened = open_checkpoint(tmp_path / "model.gguf")
    again = opened.network()
    assert isinstance(again, Encoder)
    tokens = torch.tensor([opened.tokenizer().encode("the same words")])
    assert tokens[0].tolist() == wordpiece().encode("the same words")
    torch.testing.assert_close(again(tokens), network(tokens), atol=1e-6, rtol=1e-6)


def test_transformers_reads_the_tokenizer(tmp_path):
    ours = byte_level()
    network = network_of(llama(model_type="qwen2", vocab_size=ours.vocabulary_size))
    save_gguf(network, tmp_path / "model.gguf", ours)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in ("the statement is executed", "naïve café 日本語 12 345", "x = f(a[0])\n\n  # y"):
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)
    assert theirs.bos_token_id == ours.bos_id
    assert theirs.eos_token_id == ours.eos_id
    assert ours.chat_template is not None
    assert theirs.chat_template == ours.chat_template.sources["default"]


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "model.gguf"
    network = network_of(llama())
    save_gguf(network, path)
    before = path.read_bytes()
    with torch.no_grad():
        network.blocks[2].mixer.output.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"'blk.2.attn_output.weight' holds 1e\+06, more than F16"):
        save_gguf(network, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    save_gguf(network, path, format="BF16")
    assert path.read_bytes() != before


def test_a_full_disk_is_said_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="a GGUF file needs"):
        save_gguf(network_of(llama()), tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_tensors_are_encoded_one_at_a_time(tmp_path):
    network = network_of(llama(num_hidden_layers=20, **ROUND))
    seen = []
    tracemalloc.start()
    save_gguf(
        network,
        tmp_path / "model.gguf",
        progress=lambda done, total: seen.append((done, total, tracemalloc.get_traced_memory()[0])),
    )
    tracemalloc.stop()
    assert [done for done, _, _ in seen] == list(range(1, seen[0][1] + 1))
    held = [memory for _, _, memory in seen]
    assert max(held) - min(held) < 0.2 * (tmp_path / "model.gguf").stat().st_size


@pytest.mark.parametrize(
    ("fields", "format", "message"),
    [
        (llama(), "Q4_K", "'Q4_K' cannot be written: make it of an F16 file with llama-quantize"),
        (llama(), "Q9", "'Q9' is unknown; those written are F32"),
        (t5(), "F16", "relative_attention_max_distance is 20 but llama.cpp would take 128"),
        (t5(**T5, feed_forward_proj="gated-silu"), "F16", "the feed-forward is 'gated-silu'"),
        (bert(hidden_act="relu"), "F16", "bends by 'relu' but llama.cpp would take 'gelu'"),
        (
            bert(architectures=["BertForTokenClassification"], num_labels=3),
            "F16",
            "no place for the head 'tokens'",
        ),
        (
            bert(model_type="roberta", architectures=["RobertaModel"]),
            "F16",
            "the family 'roberta' have no GGUF form; these have",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(fields, format, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_gguf(network_of(fields), tmp_path / "model.gguf", None, format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["mean", "first", "last"])
def test_pooling_is_written_and_read(mode):
    stated = write_pooling("bert", PoolingConfig((mode,)), [NormalizeConfig()])
    assert read_pooling({"general.architecture": "bert"} | stated) == PoolingConfig((mode,))


def test_pooling_that_llama_cpp_lacks_is_refused():
    with pytest.raises(ValueError, match="pools by 'max, mean' but a GGUF file can say mean"):
        write_pooling("bert", PoolingConfig(("max", "mean")), [])
    with pytest.raises(ValueError, match="projects the pooled vector"):
        write_pooling("bert", PoolingConfig(), [DenseConfig(4, 2)])


def test_the_library_keeps_quiet(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        save_gguf(network_of(llama()), tmp_path / "model.gguf")
    assert not caplog.records
