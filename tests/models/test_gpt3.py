"""GPT-3's shape: GPT-2 whose sparse layers look where they say and no further."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.decoder import Decoder
from limner.nn.sparse import Banded
from tests.families import VOCABULARY, gpt2


@pytest.mark.parametrize("pattern", [{"band": 4}, {"band": 2, "stride": 5}])
@torch.no_grad()
def test_all_layers_sparse_equal_the_reference_under_the_same_mask(pattern, tmp_path):
    torch.manual_seed(0)
    fields = gpt2() | {"limner_sparse_attention": {"layers": [0, 1, 2], **pattern}}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).eval()
    model.save_pretrained(tmp_path)
    tokens = torch.randint(VOCABULARY, (2, 19))
    index = torch.arange(19)
    mask = Banded(**pattern)(index[None], index[None]) & torch.ones(19, 19, dtype=torch.bool).tril()
    expected = model(tokens, attention_mask=mask.expand(2, 1, 19, 19)).logits
    network = open_checkpoint(tmp_path).network()
    assert isinstance(network, Decoder)
    torch.testing.assert_close(network.logits(tokens), expected, atol=1e-5, rtol=1e-5)


def test_the_pattern_survives_saving(tmp_path):
    torch.manual_seed(0)
    fields = gpt2() | {"limner_sparse_attention": {"layers": [1], "band": 4, "stride": None}}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).save_pretrained(tmp_path)
    network = open_checkpoint(tmp_path).network()
    save_folder(network, tmp_path / "again")
    again = open_checkpoint(tmp_path / "again").config
    assert [block.mixer.pattern for block in again.blocks] == [None, Banded(4), None]  # type: ignore[attr-defined]
