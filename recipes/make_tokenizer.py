"""Train a tokenizer for the recipes from texts.

    python recipes/make_tokenizer.py characters input.txt tokenizers/characters
    python recipes/make_tokenizer.py bpe python tokenizers/python --size 4096
    python recipes/make_tokenizer.py wordpiece descriptions.jsonl tokenizers/wordpiece --size 4096
    python recipes/make_tokenizer.py pairs descriptions.jsonl tokenizers/pairs --size 4096

The texts are a source of `limner data prepare`, of which every n-th document is read (--every n).
`pairs` is `bpe` with a mask and sentinels, for T5 and BART, whose texts end with EOS.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from limner.data.sources import open_source

SENTINELS = [f"<extra_id_{number}>" for number in range(40)]
ROLES = {
    "characters": {"eos_token": "</s>"},
    "bpe": {"eos_token": "</s>"},
    "pairs": {"eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"},
    "wordpiece": {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
}


def main() -> None:
    """Train it and write tokenizer.json and tokenizer_config.json."""
    options = parse_options()
    make = {"characters": characters, "wordpiece": wordpiece}.get(options.kind, byte_level)
    tokenizer = make(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.folder / "tokenizer.json"))
    config = json.dumps(ROLES[options.kind], indent=2)
    (options.folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    print(f"{options.folder}: {tokenizer.get_vocab_size():,} tokens")


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=ROLES)
    parser.add_argument("source")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--every", type=int, default=3)
    return parser.parse_args()


def texts(options: argparse.Namespace) -> Iterator[str]:
    """Every n-th document."""
    return islice(open_source(options.source), 0, None, options.every)


def characters(options: argparse.Namespace) -> Tokenizer:
    """A token for each byte that occurs."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found = {
        letter
        for text in open_source(options.source)
        for word, _ in split.pre_tokenize_str(text)
        for letter in word
    }
    names = ["</s>", *sorted(found)]
    tokenizer = Tokenizer(models.BPE(vocab={name: n for n, name in enumerate(names)}, merges=[]))
    tokenizer.add_special_tokens([AddedToken("</s>", normalized=False)])
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
    return tokenizer


def byte_level(options: argparse.Namespace) -> Tokenizer:
    """Byte-level BPE."""
    pairs = options.kind == "pairs"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.size,
        special_tokens=["</s>", *(["<pad>", "<mask>", *SENTINELS] if pairs else [])],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(options), trainer)
    if pairs:
        end = [("</s>", tokenizer.token_to_id("</s>"))]
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=end)
    return tokenizer


def wordpiece(options: argparse.Namespace) -> Tokenizer:
    """BERT's, in lower case."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.size, special_tokens=names, show_progress=False
    )
    tokenizer.train_from_iterator(texts(options), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


if __name__ == "__main__":
    main()
