"""The metadata by which a GGUF file holds a tokenizer; `tokenizer_from_gguf` is the way back.

llama.cpp knows four models: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE), "bert"
(WordPiece) and "t5" (unigram). What a tokenizer does besides has no place in the file, so the
metadata are read back and compared with the tokenizer before they are given out.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from gguf import TokenType

from limner.tokenizers.chat import DEFAULT, ChatTemplate
from limner.tokenizers.gguf import tokenizer_from_gguf
from limner.tokenizers.pretokenizers import WORD_SPLITS, word_split
from limner.tokenizers.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_PREFIX = "tokenizer.ggml."
_SPACE = "\u2581"
_BYTE = re.compile("<0x[0-9A-F]{2}>")

_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # the format's own spelling
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_STOPS = ("eot_token_id", "eom_token_id")

#: Of several names for one way of cutting, those of the models that it was made for.
_USUAL = ("gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "smollm", "deepseek-v3")

#: Text that tells ways of cutting and of normalising apart. It is in NFC, which llama.cpp does not
#: bring text into.
PROBES = (
    "Hello, world! It's we'll I'D THEY'VE don't x's 'S 'k",
    "1 12 123 1234 12345 1234567 x1y22z333 1,234.5678 ٣٤٥ Ⅷ½ 1\n22",
    "two   three    four\tand\t\ttabs  1   22 \n\n\n lines\r\n\r\n  \n end",
    "a!b !!!\n\n??? ...\n#$%^&*()_+-=[]{}|;':\",./<>?`~ $+<=>^~| //\n/a/ .\r\n!\n\nx",
    "日本語 かなカナ 漢字123 中文，标点。 한국어 ไทย မြန်မာ ㄅㄆ …“q”—",
    "Привет naïve café Été ÀB क्षेत्र x\u030c\u0301y ʰ Ǆ ｈａｌｆ ﬁne ①㎏ ﷺ",
    "camelCase HTMLParser aB Ab ABc iPhone12Pro it'sNot IT'S A'd é'll 'Ll",
    "👩\u200d👩\u200d👧 🇩🇪 ❤\ufe0f\u00a0nbsp\u3000wide \u200bzero\u2028line ▁▁ _snake_case_",
    "<sentinel:3> IMGIMGABCZ x    y \n\t z\u0085 a.b،ج।द۔ one.Two;three",
    "<|im_start|>user\n[INST] <s> [MASK] <0x41> ##un",
    '+a -b !Word .word (word) «mot» ¿qué? €5 x²+y³ \\n {"k": [1, 2]}',
    "a\n\n\nb\n \nc   \n\nd\r\re!\r\n f?/\n/ g...",
)
_EDGES = ("  a  ", "\n a \n\n", " 1 ")


def tokenizer_to_gguf(tokenizer: Tokenizer, size: int | None = None) -> dict[str, Any]:
    """What a GGUF file says of a tokenizer, keys as in the file.

    Args:
        tokenizer: of any kind that llama.cpp knows.
        size: the vocabulary of the model, if larger; unused tokens fill it up.

    Raises:
        ValueError: there are fewer places than tokens, or llama.cpp would tokenize otherwise.
    """
    if tokenizer.kind not in _WRITERS:
        raise ValueError(
            f"a {tokenizer.kind} tokenizer has no GGUF form: llama.cpp knows {', '.join(_WRITERS)}"
        )
    source = _read(tokenizer, size or tokenizer.vocabulary_size)
    fields = {"pre": "default", "tokens": source.tokens, "token_type": source.kinds}
    fields |= source.special_ids | _frame(tokenizer) | _WRITERS[tokenizer.kind](source)
    metadata = {_PREFIX + key: value for key, value in fields.items()}
    metadata |= _templates(tokenizer.chat_template)
    again = tokenizer_from_gguf(metadata)
    _refuse_difference(tokenizer, again)
    return metadata | _stops(tokenizer.stop_ids - again.stop_ids)


@dataclass(frozen=True)
class _Source:
    """A tokenizer in the parts that a file is made of.

    `model` and `normalizers` are as in tokenizer.json; `kinds` are of `gguf.TokenType`.
    """

    engine: tokenizers.Tokenizer
    model: Mapping[str, Any]
    normalizers: Sequence[Mapping[str, Any]]
    tokens: list[str]
    kinds: list[int]
    special_ids: dict[str, int]

    def kinds_with_unknown(self) -> list[int]:
        """The kinds as SentencePiece has them, the unknown token being no control token."""
        kinds = list(self.kinds)
        if "unknown_token_id" in self.special_ids:
            kinds[self.special_ids["unknown_token_id"]] = int(TokenType.UNKNOWN)
        return kinds

    def normalized(self, text: str) -> str:
        """Text as the model sees it, words not apart."""
        if self.engine.normalizer is not None:
            text = self.engine.normalizer.normalize_str(text)
        if self.engine.pre_tokenizer is not None:
            pieces = self.engine.pre_tokenizer.pre_tokenize_str(text)
            text = "".join(piece for piece, _ in pieces)
        return text


def _read(tokenizer: Tokenizer, size: int) -> _Source:
    if size < tokenizer.vocabulary_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens but the model only {size}: "
            "this is not the model's tokenizer"
        )
    described = json.loads(tokenizer.engine.to_str())
    names = [tokenizer.engine.id_to_token(token_id) for token_id in range(size)]
    ids = {key: tokenizer.role_id(role) for role, key in _ROLES.items()}
    return _Source(
        tokenizer.engine,
        described["model"],
        _steps(described["normalizer"]),
        [f"[PAD{place}]" if name is None else name for place, name in enumerate(names)],
        [int(_kind(tokenizer, described["model"], *row)) for row in enumerate(names)],
        {key: token_id for key, token_id in ids.items() if token_id is not None},
    )


def _kind(
    tokenizer: Tokenizer, model: Mapping[str, Any], token_id: int, token: str | None
) -> TokenType:
    added = tokenizer.added_tokens.get(token_id)
    if token is None:
        return TokenType.UNUSED
    if model.get("byte_fallback") and _BYTE.fullmatch(token):
        return TokenType.BYTE
    if added is not None:
        return TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    return TokenType.NORMAL


def _frame(tokenizer: Tokenizer) -> dict[str, bool]:
    """Whether a text begins with BOS and ends with EOS; WordPiece's always has both ends."""
    body, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    starts = range(len(whole) - len(body) + 1)
    start = next(place for place in starts if whole[place : place + len(body)] == body)
    between = tokenizer.encode_pair("a", "a").ids[start + len(body) : -len(body) or None]
    return {
        "add_bos_token": start > 0,
        "add_eos_token": start + len(body) < len(whole),
        "add_sep_token": len(between) - (len(whole) - len(body) - start) >= 2,
    }


def _templates(template: ChatTemplate | None) -> dict[str, Any]:
    if template is None:
        return {}
    key = "tokenizer.chat_template"
    others = [name for name in template.sources if name != DEFAULT]
    named = {f"{key}.{name}": template.sources[name] for name in others}
    listed = {f"{key}s": others} if others else {}
    return {key: template.sources[DEFAULT]} | listed | named


def _stops(unknown: frozenset[int]) -> dict[str, int]:
    """Ends of an answer that llama.cpp does not know by their names."""
    if len(unknown) > len(_STOPS):
        log.warning("a GGUF file has room for %d of the ends %s", len(_STOPS), sorted(unknown))
    return {_PREFIX + key: token_id for key, token_id in zip(_STOPS, sorted(unknown), strict=False)}


def _refuse_difference(tokenizer: Tokenizer, again: Tokenizer) -> None:
    """ValueError if the tokenizer that was read back is another one."""
    for probe in PROBES:
        ids, others = tokenizer.encode(probe), again.encode(probe)
        if ids == others:
            continue
        place = next(
            (n for n, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b),
            min(len(ids), len(others)),
        )
        raise ValueError(
            f"this {tokenizer.kind} tokenizer has no GGUF form: llama.cpp would read {probe!r} "
            f"otherwise, from token {place} on"
        )
    if any(tokenizer.encode(edge) != again.encode(edge) for edge in _EDGES):
        log.warning("llama.cpp reads spaces at the ends of a text otherwise than this tokenizer")


# Each kind


def _byte_level(source: _Source) -> dict[str, Any]:
    steps = [step["type"] for step in source.normalizers]
    if "NFC" in steps:
        log.warning(
            "llama.cpp does not compose characters (NFC) as this tokenizer does: accents that are "
            "written as characters of their own may become other tokens there"
        )
    lowercase = {"normalizer.lowercase": True} if "Lowercase" in steps else {}
    return lowercase | {
        "model": "gpt2",
        "pre": split_name(source.engine, ignore_merges=source.model["ignore_merges"]),
        "merges": [" ".join(pair) for pair in source.model["merges"]],
    }


def split_name(engine: tokenizers.Tokenizer, *, ignore_merges: bool) -> str:
    """llama.cpp's name for how `engine` cuts text into words, found by trying.

    Raises:
        ValueError: llama.cpp cuts in no such way.
    """
    cut, probes = engine.pre_tokenizer, (*PROBES, *_EDGES)
    # Without any cutting a text is one word, and its place is all of it.
    wanted = [cut.pre_tokenize_str(p) if cut else [(p, (0, len(p)))] for p in probes]
    for name in sorted(WORD_SPLITS, key=lambda name: name not in _USUAL):
        split = word_split(name)
        if split.ignore_merges != ignore_merges or not split.byte_level:
            continue
        ours = split.build()
        if all(ours.pre_tokenize_str(p) == w for p, w in zip(probes, wanted, strict=True)):
            return name
    raise ValueError(
        "this tokenizer cuts text into words in a way that llama.cpp has no name for: "
        "it has no GGUF form"
    )


def _sentencepiece_bpe(source: _Source) -> dict[str, Any]:
    kinds = source.kinds_with_unknown()
    for token_id in _symbols(source):
        if kinds[token_id] == TokenType.NORMAL:
            kinds[token_id] = int(TokenType.USER_DEFINED)
    if not source.model["byte_fallback"]:
        log.warning("llama.cpp fails on characters that this vocabulary, without bytes, lacks")
    return {
        "model": "llama",
        "scores": merge_scores(source.tokens, source.model["merges"]),
        "token_type": kinds,
        "add_space_prefix": source.normalized("a").startswith(_SPACE),
    }


def merge_scores(tokens: Sequence[str], merges: Sequence[Sequence[str]]) -> list[float]:
    """Scores by which SentencePiece merges in the order of `merges`: minus the rank of each."""
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _symbols(source: _Source) -> Iterator[int]:
    """Tokens that are always cut out of text, as user-defined symbols are."""
    cut = source.engine.pre_tokenizer
    if cut is None or not source.model["ignore_merges"]:
        return
    for token, token_id in source.model["vocab"].items():
        pieces = [piece for piece, _ in cut.pre_tokenize_str(f"a{token}a")]
        if pieces == ["a", token, "a"]:
            yield token_id


def _unigram(source: _Source) -> dict[str, Any]:
    scores = [float(score) for _, score in source.model["vocab"]]
    unused = [min(scores) - 1000.0] * (len(source.tokens) - len(scores))
    charsmaps = [
        base64.b64decode(step["precompiled_charsmap"])
        for step in source.normalizers
        if step["type"] == "Precompiled"
    ]
    return {
        "model": "t5",
        "scores": scores + unused,
        "token_type": source.kinds_with_unknown(),
        "add_space_prefix": source.normalized("a").startswith(_SPACE),
        "remove_extra_whitespaces": _SPACE * 2 not in source.normalized("a  a"),
        **({"precompiled_charsmap": charsmaps[0]} if charsmaps else {}),
    }


def _wordpiece(source: _Source) -> dict[str, Any]:
    steps = [step for step in source.normalizers if step["type"] == "BertNormalizer"]
    lowercase = bool(steps and steps[0]["lowercase"])
    accents = steps[0]["strip_accents"] if steps else None
    return {
        "model": "bert",
        "tokens": phantom_spaces(source.tokens, source.kinds),
        "bos_token_id": source.special_ids.get("cls_token_id", 101),
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": lowercase if accents is None else bool(accents),
    }


def phantom_spaces(tokens: Sequence[str], kinds: Sequence[int]) -> list[str]:
    """From "un", "##happ" as in BERT to "▁un", "happ" as in GGUF.

    Raises:
        ValueError: two tokens are spelled alike then, which llama.cpp does not survive.
    """

    def spelled(token: str, kind: int) -> str:
        if kind in (TokenType.CONTROL, TokenType.UNUSED):
            return token
        return token[2:] if token.startswith("##") else _SPACE + token

    spelt = [spelled(token, kind) for token, kind in zip(tokens, kinds, strict=True)]
    if len(set(spelt)) < len(spelt):
        twice = next(token for token in spelt if spelt.count(token) > 1)
        raise ValueError(f"two tokens of the vocabulary would be {twice!r} in a GGUF file")
    return spelt


def _steps(described: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The parts of a normaliser, sequences opened."""
    if described is None:
        return []
    if described["type"] == "Sequence":
        return [step for part in described["normalizers"] for step in _steps(part)]
    return [described]


_WRITERS: dict[str, Callable[[_Source], dict[str, Any]]] = {
    "byte-level BPE": _byte_level,
    "SentencePiece BPE": _sentencepiece_bpe,
    "WordPiece": _wordpiece,
    "unigram": _unigram,
}
