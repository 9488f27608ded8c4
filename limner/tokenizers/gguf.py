"""The tokenizer that a GGUF file holds, from the file's metadata.

Four models, by ``tokenizer.ggml.model``: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE),
"bert" (WordPiece) and "t5" (unigram). Where a key is absent, llama.cpp's assumption holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from limner.tokenizers import sentencepiece
from limner.tokenizers.chat import DEFAULT, ChatTemplate
from limner.tokenizers.framing import Frame
from limner.tokenizers.pretokenizers import WordSplit, word_split
from limner.tokenizers.tokenizer import Tokenizer

_PREFIX = "tokenizer.ggml."
_SPACE = "\u2581"


class _Kind(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_ROLES = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "unknown_token_id": "unk_token",
    "seperator_token_id": "sep_token",  # the format's own spelling
    "separator_token_id": "sep_token",
    "padding_token_id": "pad_token",
    "cls_token_id": "cls_token",
    "mask_token_id": "mask_token",
}
_STOPS = ("eot_token_id", "eom_token_id")

# Tokens that end a turn, for files that name only the end of text. As in llama.cpp.
_TURN_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "[EOT]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
)


class _Vocabulary:
    """The tokens of a GGUF file, checked."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.tokens: list[str] = self._distinct(list(self.require("tokens")))
        self.kinds = self._per_token("token_type", _Kind.NORMAL)
        self.roles = self._roles()

    def get(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(_PREFIX + key, default)

    def require(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise ValueError(f"the GGUF file has no {_PREFIX}{key}: it holds no complete tokenizer")
        return value

    def scores(self) -> list[float]:
        """Scores of the pieces of a SentencePiece model."""
        return self._per_token("scores", 0.0)

    def of_kind(self, *kinds: _Kind) -> list[str]:
        wanted = {int(kind) for kind in kinds}
        return [
            token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind in wanted
        ]

    def ids(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self.tokens)}

    def _per_token(self, key: str, default: Any) -> list[Any]:
        values = self.get(key)
        if values is None:
            return [default] * len(self.tokens)
        if len(values) < len(self.tokens):
            raise ValueError(
                f"{_PREFIX}{key} has {len(values)} entries for {len(self.tokens)} tokens"
            )
        return list(values[: len(self.tokens)])

    def _distinct(self, tokens: list[str]) -> list[str]:
        """Padding tokens of the same name are told apart, for ids are looked up by name."""
        if len(set(tokens)) == len(tokens) and "" not in tokens:
            return tokens
        seen: set[str] = set()
        for place, token in enumerate(tokens):
            if token in seen or not token:
                tokens[place] = f"[{token or 'EMPTY'}_{place}]"
            seen.add(tokens[place])
        return tokens

    def _roles(self) -> dict[str, str]:
        found = {role: self.get(key) for key, role in _ROLES.items() if self.get(key) is not None}
        return {role: self.name(token_id, role) for role, token_id in found.items()}

    def name(self, token_id: int, what: str) -> str:
        if not 0 <= token_id < len(self.tokens):
            raise ValueError(
                f"the GGUF file gives {what} the id {token_id}, but has {len(self.tokens)} tokens"
            )
        return self.tokens[token_id]

    def assume(self, **ids: int) -> None:
        """Roles that hold if the file says nothing."""
        for role, token_id in ids.items():
            if token_id < len(self.tokens):
                self.roles.setdefault(role, self.tokens[token_id])


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer of a GGUF file.

    Args:
        metadata: the file's keys and values; arrays as sequences of str, int or float.

    Raises:
        ValueError: if the file has no complete tokenizer, or one of a kind that is not known.
    """
    model = metadata.get(_PREFIX + "model")
    if model not in _BUILDERS:
        known = ", ".join(_BUILDERS)
        raise ValueError(f"{_PREFIX}model is {model!r}; the known ones are {known}")
    vocabulary = _Vocabulary(metadata)
    engine, frame = _BUILDERS[model](vocabulary)
    _add_tokens(engine, vocabulary)
    engine.post_processor = frame.build(engine)
    return Tokenizer(
        engine,
        roles=vocabulary.roles,
        chat_template=_chat_template(metadata),
        stop_ids=_stop_ids(vocabulary),
    )


def _add_tokens(engine: tokenizers.Tokenizer, vocabulary: _Vocabulary) -> None:
    special = vocabulary.of_kind(_Kind.CONTROL)
    if vocabulary.roles.get("unk_token"):
        special.append(vocabulary.roles["unk_token"])
    plain = vocabulary.of_kind(_Kind.USER_DEFINED)
    engine.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    engine.add_tokens([AddedToken(token, normalized=False) for token in plain])


def _stop_ids(vocabulary: _Vocabulary) -> list[int]:
    stated = [vocabulary.get(key) for key in _STOPS if vocabulary.get(key) is not None]
    control = set(vocabulary.of_kind(_Kind.CONTROL)).intersection(_TURN_ENDS)
    found = [place for place, token in enumerate(vocabulary.tokens) if token in control]
    # gpt-oss: <|end|> closes one message of several in an answer.
    if {"<|return|>", "<|call|>"} <= control:
        found = [place for place in found if vocabulary.tokens[place] != "<|end|>"]
    return [*stated, *found]


def _chat_template(metadata: Mapping[str, Any]) -> ChatTemplate | None:
    key = "tokenizer.chat_template"
    sources = {
        name: metadata[f"{key}.{name}"]
        for name in metadata.get(f"{key}s", [])
        if f"{key}.{name}" in metadata
    }
    if key in metadata:
        sources[DEFAULT] = metadata[key]
    return ChatTemplate(sources) if DEFAULT in sources else None


_Built = tuple[tokenizers.Tokenizer, Frame]


def _byte_level(vocabulary: _Vocabulary) -> _Built:
    split = word_split(vocabulary.get("pre", "default"))
    halves = [tuple(merge.split(" ")) for merge in vocabulary.require("merges")]
    merges = [pair if len(pair) == 2 else _pair(" ".join(pair)) for pair in halves]
    model = models.BPE(
        vocab=vocabulary.ids(),
        merges=merges,
        ignore_merges=split.ignore_merges,
        byte_fallback=not split.byte_level,
    )
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = split.build()
    engine.normalizer = _bpe_normalizer(vocabulary, split)
    engine.decoder = decoders.ByteLevel() if split.byte_level else sentencepiece.decoder(False)
    return engine, _bpe_frame(vocabulary, split)


def _pair(merge: str) -> tuple[str, str]:
    """The halves of a merge one of which has a space in it."""
    place = merge.find(" ", 1)  # the first token may itself begin with a space
    return merge[:place], merge[place + 1 :]


def _bpe_normalizer(vocabulary: _Vocabulary, split: WordSplit) -> Any:
    if split.escape_spaces:
        return normalizers.Replace(" ", _SPACE)
    if vocabulary.get("normalizer.lowercase", False):
        return normalizers.Lowercase()
    return None


def _bpe_frame(vocabulary: _Vocabulary, split: WordSplit) -> Frame:
    roles = vocabulary.roles
    bos, eos = roles.get("bos_token"), roles.get("eos_token")
    if vocabulary.get("add_sep_token", split.add_sep):
        return Frame(before=bos, after=roles.get("sep_token", eos), between_twice=True)
    return Frame(
        before=bos if vocabulary.get("add_bos_token", split.add_bos) else None,
        after=eos if vocabulary.get("add_eos_token", False) else None,
    )


def _sentencepiece_bpe(vocabulary: _Vocabulary) -> _Built:
    vocabulary.assume(bos_token=1, eos_token=2, unk_token=0)
    scores = vocabulary.scores()
    normal = [kind == _Kind.NORMAL for kind in vocabulary.kinds]
    merges = sentencepiece.merges(vocabulary.tokens, scores, normal)
    engine = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary.ids(),
            merges=merges,
            unk_token=vocabulary.roles.get("unk_token"),
            fuse_unk=True,
            byte_fallback=_Kind.BYTE in vocabulary.kinds,
        )
    )
    prefix = vocabulary.get("add_space_prefix", True)
    steps = [normalizers.Replace(" ", _SPACE)]
    engine.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), *steps] if prefix else steps
    )
    engine.decoder = sentencepiece.decoder(prefix)
    return engine, _sentencepiece_frame(vocabulary, add_bos=True, add_eos=False)


def _sentencepiece_frame(vocabulary: _Vocabulary, *, add_bos: bool, add_eos: bool) -> Frame:
    roles = vocabulary.roles
    return Frame(
        before=roles.get("bos_token") if vocabulary.get("add_bos_token", add_bos) else None,
        after=roles.get("eos_token") if vocabulary.get("add_eos_token", add_eos) else None,
    )


def _unigram(vocabulary: _Vocabulary) -> _Built:
    vocabulary.assume(eos_token=1, unk_token=2, pad_token=0)
    charsmap = bytes(value & 0xFF for value in vocabulary.get("precompiled_charsmap", []))
    unknown = vocabulary.roles.get("unk_token")
    engine = sentencepiece.unigram_engine(
        sentencepiece.Pieces(
            vocabulary.tokens,
            vocabulary.scores(),
            normal=[kind == _Kind.NORMAL for kind in vocabulary.kinds],
            user_defined=[kind == _Kind.USER_DEFINED for kind in vocabulary.kinds],
        ),
        unknown=vocabulary.ids()[unknown] if unknown is not None else None,
        byte_fallback=_Kind.BYTE in vocabulary.kinds,
    )
    prefix = vocabulary.get("add_space_prefix", True)
    engine.normalizer = sentencepiece.normalizer(
        charsmap, vocabulary.get("remove_extra_whitespaces", False), prefix
    )
    engine.decoder = sentencepiece.decoder(prefix)
    return engine, _sentencepiece_frame(vocabulary, add_bos=False, add_eos=True)


def _wordpiece(vocabulary: _Vocabulary) -> _Built:
    vocabulary.assume(unk_token=100, cls_token=101, sep_token=102, mask_token=103, pad_token=0)
    if "bos_token" in vocabulary.roles:
        vocabulary.roles["cls_token"] = vocabulary.roles.pop("bos_token")
    vocabulary.roles.pop("eos_token", None)
    vocabulary.tokens = _with_continuations(vocabulary.tokens, vocabulary.kinds)
    unknown = vocabulary.roles.get("unk_token", "[UNK]")
    engine = tokenizers.Tokenizer(models.WordPiece(vocabulary.ids(), unk_token=unknown))
    lowercase = vocabulary.get("normalizer.lowercase", True)
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        strip_accents=vocabulary.get("normalizer.strip_accents", lowercase),
    )
    engine.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    roles = vocabulary.roles
    return engine, Frame(before=roles.get("cls_token"), after=roles.get("sep_token"))


def _with_continuations(tokens: Iterable[str], kinds: Sequence[int]) -> list[str]:
    """From "▁un", "happ" as in GGUF to "un", "##happ" as in BERT."""

    def spelled(token: str, kind: int) -> str:
        if kind in (_Kind.CONTROL, _Kind.UNKNOWN) or (token[:1] == "[" and token[1:].endswith("]")):
            return token
        return token[1:] if token.startswith(_SPACE) else "##" + token

    return [spelled(token, kind) for token, kind in zip(tokens, kinds, strict=True)]


_BUILDERS: dict[str, Callable[[_Vocabulary], _Built]] = {
    "gpt2": _byte_level,
    "gemma4": _byte_level,
    "whitespace": _byte_level,
    "llama": _sentencepiece_bpe,
    "bert": _wordpiece,
    "t5": _unigram,
}
