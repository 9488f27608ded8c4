"""Folders of tiny models with tokenizers, as transformers writes them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.families import VOCABULARY, Fields

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = """the a cat dog man woman sat ran eats red blue on under of in and is was big small house
tree road sun sea old young fish bird king queen city Paris France"""
WORDS = TEXT.split()
ROLES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def tokenizer(framed: bool = True, **roles: str) -> PreTrainedTokenizerFast:
    """Words between spaces; `framed` puts [CLS] before and [SEP] behind, otherwise only [SEP]."""
    listed = SPECIAL + WORDS
    listed += [f"word{number}" for number in range(len(listed), VOCABULARY)]
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if framed else "$A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, **(ROLES | roles))


def write_folder(
    folder: Path, fields: Fields, framed: bool = True, noise: float = 0.2, **roles: str
) -> Any:
    """Write a tiny random model of the architecture in `fields` and its tokenizer; the model."""
    torch.manual_seed(0)
    (architecture,) = fields["architectures"]
    model = getattr(transformers, architecture)(AutoConfig.for_model(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * noise)
    model.save_pretrained(folder)
    tokenizer(framed, **roles).save_pretrained(folder)
    return model
