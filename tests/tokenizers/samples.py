"""Small tokenizers of each kind, trained on the spot."""

import functools
import io
from pydoc_data.topics import topics
from typing import Any

import sentencepiece
import tokenizers
from hypothesis import strategies
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from limner.tokenizers import ChatTemplate, Tokenizer
from limner.tokenizers.pretokenizers import GPT2

LINES = [
    *[line for text in list(topics.values())[:12] for line in text.split("\n") if line.strip()],
    *["naïve café déjà vu 日本語 Привет мир 👩‍👩‍👧 ½ ﬁne ＡＢＣ"] * 20,
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<s>", "</s>"]
ADDED = ["<tool_call>", "</tool_call>", "<think>", "</think>", "    "]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Characters that tokenizers stumble on, beside any others.
_AWKWARD = " \n\r\tab12'sS.<|>[]/👩‍🇩é漢字्ा\u0301ﬁ½Ａ▁\u200d\ufffd"
_WORDS = [*SPECIAL, *ADDED, "the ", " in", "<0x41>", "<unk>", "[SEP]", " ", "e", "▁▁", "foo"]
TEXTS = (
    strategies.text(max_size=40)
    | strategies.text(alphabet=_AWKWARD, max_size=40)
    | strategies.lists(strategies.sampled_from(_WORDS), max_size=8).map("".join)
)


def byte_level_engine() -> tokenizers.Tokenizer:
    """Byte-level BPE with special tokens, and added tokens that are not special."""
    engine = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(GPT2), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), split, pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator(LINES, trainer)
    engine.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    return engine


@functools.cache
def byte_level() -> Tokenizer:
    """A tokenizer that chats."""
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    return Tokenizer(byte_level_engine(), roles=roles, chat_template=ChatTemplate(CHATML))


def wordpiece_engine() -> tokenizers.Tokenizer:
    """BERT's tokenizer."""
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=names, show_progress=False)
    engine.train_from_iterator(LINES, trainer)
    engine.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return engine


@functools.cache
def wordpiece() -> Tokenizer:
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return Tokenizer(wordpiece_engine(), roles=roles | {"mask_token": "[MASK]"})


SENTENCEPIECE_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "llama": {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "vocab_size": 800,
    },
    "gemma": {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<turn>", "foo"],
        "vocab_size": 800,
    },
    "symbols": {"user_defined_symbols": ["<think>", "foo"], "control_symbols": ["[INST]"]},
}


@functools.cache
def sentencepiece_model(kind: str, settings: str) -> bytes:
    """A SentencePiece model file; `kind` is "bpe" or "unigram"."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=file,
        model_type=kind,
        hard_vocab_limit=False,
        minloglevel=5,
        **{"vocab_size": 600} | SENTENCEPIECE_SETTINGS[settings],
    )
    return file.getvalue()


def gguf_of_sentencepiece(model: bytes, name: str) -> dict[str, Any]:
    """What a converter writes into a GGUF file for a SentencePiece model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())

    def kind(token_id: int) -> int:
        tests = (processor.is_unknown, processor.is_control, processor.is_byte)
        found = [number for number, test in zip((2, 3, 6), tests, strict=True) if test(token_id)]
        return found[0] if found else 1

    prefix = "tokenizer.ggml."
    return {
        prefix + "model": name,
        prefix + "tokens": [processor.id_to_piece(token_id) for token_id in ids],
        prefix + "scores": [processor.get_score(token_id) for token_id in ids],
        prefix + "token_type": [kind(token_id) for token_id in ids],
        prefix + "bos_token_id": processor.bos_id(),
        prefix + "eos_token_id": processor.eos_id(),
        prefix + "unknown_token_id": processor.unk_id(),
    }


def gguf_of_bpe(engine: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    """What a converter writes into a GGUF file for a byte-level BPE tokenizer."""
    import json

    model = json.loads(engine.to_str())["model"]
    added = engine.get_added_tokens_decoder()
    tokens = [str(engine.id_to_token(token_id)) for token_id in range(engine.get_vocab_size())]
    kinds = [
        1 if token_id not in added else 3 if added[token_id].special else 4
        for token_id in range(len(tokens))
    ]
    prefix = "tokenizer.ggml."
    return {
        prefix + "model": "gpt2",
        prefix + "pre": pre,
        prefix + "tokens": tokens,
        prefix + "token_type": kinds,
        prefix + "merges": [" ".join(merge) for merge in model["merges"]],
        prefix + "bos_token_id": tokens.index("<|im_start|>"),
        prefix + "eos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.chat_template": CHATML,
    }
