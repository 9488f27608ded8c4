import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from limner.language_model.cross_encoder import load_cross_encoder
from tests.families import VOCABULARY
from tests.text_folders import write_folder

PAIRS = [("the cat sat", "a dog ran in the house"), ("sun", "sea"), ("the king", "queen of Paris")]
BERT = {
    "model_type": "bert", "architectures": ["BertForSequenceClassification"],
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": VOCABULARY, "max_position_embeddings": 24,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForSequenceClassification"],
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 24,
    "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize("fields", [BERT, LLAMA], ids=["encoder", "decoder"])
def test_scores_are_those_of_transformers(tmp_path, fields):
    write_folder(tmp_path, fields | {"num_labels": 1})
    ours = load_cross_encoder(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    got = ours.scores([ours.encode(*pair) for pair in PAIRS])
    for pair, score in zip(PAIRS, got, strict=True):
        kinds = fields is BERT
        given = tokenizer(*pair, return_tensors="pt", return_token_type_ids=kinds)
        with torch.no_grad():
            expected = theirs(**given).logits.sigmoid().item()
        assert score == pytest.approx(expected, abs=1e-5)
    assert len(set(got)) == 3


def test_a_pair_that_is_too_long_is_cut_only_if_asked(tmp_path):
    write_folder(tmp_path, BERT | {"num_labels": 1})
    model = load_cross_encoder(tmp_path)
    long = "the cat " * 20
    with pytest.raises(ValueError, match=r"45 tokens together, but .* to 24"):
        model.encode("sun sea", long)
    ids, segments = model.encode("sun sea", long, truncate=24)
    whole = model.encode("sun sea", "the cat " * 9 + "the")
    assert (ids, segments) == whole
    assert len(ids) == 24


def test_a_head_of_several_labels_gives_no_score(tmp_path):
    write_folder(tmp_path, BERT | {"num_labels": 3})
    with pytest.raises(ValueError, match="a head of one label, and it has 3"):
        load_cross_encoder(tmp_path)
