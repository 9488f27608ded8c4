"""SentencePiece models (Kudo and Richardson 2018): reading the file, and what its settings mean.

The file is a protocol buffer of a dozen fields, read here directly, so that nothing else is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from limner.tokenizers.framing import Frame
from limner.tokenizers.partition import any_of
from limner.tokenizers.tokenizer import Tokenizer

_SPACE = "\u2581"


class _Kind(IntEnum):
    """``ModelProto.SentencePiece.Type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Pieces:
    """A vocabulary with its scores, in the order of ids."""

    texts: Sequence[str]
    scores: Sequence[float]
    normal: Sequence[bool]
    user_defined: Sequence[bool]


# Reading protocol buffers


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("not a SentencePiece model, or cut short")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: number, and an int, a float or bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        size, place = _varint(data, place) if wire == 2 else ({1: 8, 5: 4}.get(wire, -1), place)
        if size < 0 or place + size > len(data):
            raise ValueError("not a SentencePiece model, or cut short")
        content = data[place : place + size]
        yield number, struct.unpack("<f", content)[0] if wire == 5 else content
        place += size


@dataclass(frozen=True)
class _Model:
    """The fields of a SentencePiece model that say how text is encoded."""

    pieces: Pieces
    kinds: list[int]
    trainer: dict[int, Any]
    normalizer: dict[int, Any]

    # Numbers of fields in TrainerSpec and NormalizerSpec, with the defaults of the format.
    @property
    def is_bpe(self) -> bool:
        return self._algorithm == 2

    @property
    def _algorithm(self) -> int:
        kind: int = self.trainer.get(3, 1)
        return kind

    def check(self) -> None:
        if self._algorithm not in (1, 2):
            name = {3: "word", 4: "character"}.get(self._algorithm, str(self._algorithm))
            raise ValueError(
                f"the SentencePiece model is of type {name}; BPE and unigram are known"
            )
        if self.trainer.get(24, 0):
            raise ValueError(
                "treat_whitespace_as_suffix in the SentencePiece model is not supported"
            )

    @property
    def byte_fallback(self) -> bool:
        return bool(self.trainer.get(35, 0))

    def of_kind(self, kind: _Kind) -> list[int]:
        return [place for place, found in enumerate(self.kinds) if found == kind]

    def role(self, number: int) -> str | None:
        """The name of a special token; its id is -1 if the model has none."""
        token_id = self.trainer.get(number, {40: 0, 41: 1, 42: 2, 43: -1}[number])
        token_id = token_id - (1 << 64) if token_id >= 1 << 63 else token_id
        return self.pieces.texts[token_id] if 0 <= token_id < len(self.kinds) else None

    def roles(self) -> dict[str, str]:
        """The special tokens by their names in tokenizer_config.json."""
        numbers = {"unk_token": 40, "bos_token": 41, "eos_token": 42, "pad_token": 43}
        return {role: name for role, number in numbers.items() if (name := self.role(number))}

    @property
    def charsmap(self) -> bytes:
        found: bytes = self.normalizer.get(2, b"")
        return found

    @property
    def dummy_prefix(self) -> bool:
        return bool(self.normalizer.get(3, 1))

    @property
    def single_spaces(self) -> bool:
        return bool(self.normalizer.get(4, 1))


def _read(data: bytes) -> _Model:
    texts, scores, kinds = [], [], []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, content in _fields(data):
        if number == 1:
            piece = dict(_fields(content))
            texts.append(piece.get(1, b"").decode())
            scores.append(piece.get(2, 0.0))
            kinds.append(piece.get(3, int(_Kind.NORMAL)))
        elif number == 2:
            trainer.update(_fields(content))
        elif number == 3:
            normalizer.update(_fields(content))
    if not texts:
        raise ValueError("not a SentencePiece model: it has no pieces")
    normal = [kind == _Kind.NORMAL for kind in kinds]
    user_defined = [kind == _Kind.USER_DEFINED for kind in kinds]
    return _Model(Pieces(texts, scores, normal, user_defined), kinds, trainer, normalizer)


# Building the engine


def read_sentencepiece(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Read a SentencePiece model (`.model`).

    Args:
        path: the file.
        config: tokenizer_config.json, for what is added to a text ("add_bos_token",
            "add_eos_token"). By itself the model begins with BOS if it has one, else ends with EOS.

    Raises:
        ValueError: if the file is no SentencePiece model, or of a kind that is not supported.
        OSError: if it cannot be read.
    """
    try:
        model = _read(path.read_bytes())
        model.check()
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    engine = _bpe_engine(model) if model.is_bpe else _unigram_engine(model)
    engine.normalizer = normalizer(model.charsmap, model.single_spaces, model.dummy_prefix)
    engine.decoder = decoder(model.dummy_prefix)
    roles = model.roles()
    special = [*roles.values(), *(model.pieces.texts[i] for i in model.of_kind(_Kind.CONTROL))]
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    bos, eos = roles.get("bos_token"), roles.get("eos_token")
    engine.post_processor = Frame(
        before=bos if config.get("add_bos_token", True) else None,
        after=eos if config.get("add_eos_token", bos is None) else None,
    ).build(engine)
    return Tokenizer(engine, roles=roles)


def _bpe_engine(model: _Model) -> tokenizers.Tokenizer:
    pieces = model.pieces
    symbols = [pieces.texts[place] for place in model.of_kind(_Kind.USER_DEFINED)]
    engine = tokenizers.Tokenizer(
        models.BPE(
            vocab={text: place for place, text in enumerate(pieces.texts)},
            merges=merges(pieces.texts, pieces.scores, pieces.normal),
            unk_token=model.role(40),
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
            ignore_merges=bool(symbols),
        )
    )
    if symbols:
        # Symbols are cut out after normalisation, for the space that is written before a text comes
        # before a symbol too; each is a word that is a token.
        engine.pre_tokenizer = pre_tokenizers.Split(Regex(any_of(symbols).pattern), "isolated")
    return engine


def _unigram_engine(model: _Model) -> tokenizers.Tokenizer:
    unknown = model.of_kind(_Kind.UNKNOWN)
    return unigram_engine(
        model.pieces, unknown[0] if unknown else None, byte_fallback=model.byte_fallback
    )


def unigram_engine(
    pieces: Pieces, unknown: int | None, *, byte_fallback: bool
) -> tokenizers.Tokenizer:
    """A unigram model (Kudo 2018) whose user-defined symbols are as good as certain."""
    rows = zip(pieces.texts, pieces.scores, pieces.user_defined, strict=True)
    scored = [(text, -0.1 if symbol else _short(score)) for text, score, symbol in rows]
    return tokenizers.Tokenizer(models.Unigram(scored, unknown, byte_fallback))


def _short(score: float) -> float:
    """A 32-bit score in nine digits, which tell it from all others.

    `tokenizers` reads longer numbers from tokenizer.json with an error in the last place, enough to
    break ties otherwise than before.
    """
    return float(f"{score:.9g}")


def merges(
    texts: Sequence[str], scores: Sequence[float], normal: Sequence[bool]
) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model, which scores the results instead of listing pairs.

    Any two neighbours may merge whose join is a piece, the best score first. So every way to cut a
    piece in two pieces is a merge, with the rank of the whole.
    """
    ids = {text: place for place, text in enumerate(texts) if normal[place]}
    ranked = sorted((place for place in ids.values()), key=lambda place: (-scores[place], place))
    return [
        (text[:cut], text[cut:])
        for text in (texts[place] for place in ranked)
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]


def normalizer(charsmap: bytes, single_spaces: bool, dummy_prefix: bool) -> Any:
    """What happens to text before it is cut into pieces."""
    steps = _character_rules(charsmap) if charsmap else []
    if single_spaces:
        steps += [
            normalizers.Replace(Regex(rf"\A +|[ {_SPACE}]+\z"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    if dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _character_rules(charsmap: bytes) -> list[Any]:
    """The model's table of replacements.

    `tokenizers` looks one cluster of characters up at a time, and misses that a long cluster (a
    decomposed Hangul syllable, two accents on a letter) begins with something in the table. So if
    the table composes characters, as all of Unicode's forms there do, that is done beforehand.
    """
    table = normalizers.Precompiled(charsmap)
    composes = table.normalize_str("e\u0301") == "\u00e9"
    return [normalizers.NFC(), table] if composes else [table]


def decoder(dummy_prefix: bool) -> Any:
    """Pieces to text: spaces, bytes, and away with the space that was written before the text."""
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if dummy_prefix else steps)
