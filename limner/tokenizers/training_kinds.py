"""The five kinds of tokenizer, each trained from pieces of text.

Two runs on the same text give the same bytes. Byte-level BPE and words come so from the trainers
of `tokenizers`. Its WordPiece trainer numbers the letters inside words in a hash table's order,
which decides between equally frequent pairs, so they are named to it beforehand. Its unigram
trainer differs from run to run and takes ten times as long as SentencePiece, which is used instead.
"""

from __future__ import annotations

import importlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from limner.tokenizers import merging
from limner.tokenizers.pretokenizers import word_split
from limner.tokenizers.sentencepiece import read_sentencepiece
from limner.tokenizers.training_settings import TokenizerSettings

#: Letters that WordPiece spells words with at most, as BERT's own.
ALPHABET = 1000
#: SentencePiece's sums depend on how many threads share them, so this is the same everywhere.
THREADS = 4
#: Bytes of a line at most; SentencePiece leaves longer ones out.
LINE = 4000


def byte_level(
    pieces: Iterable[str],
    settings: TokenizerSettings,
    *,
    show: bool,
    count: int,
    text_bytes: int,
) -> tokenizers.Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019); may read the pieces twice."""
    need = len(pre_tokenizers.ByteLevel.alphabet()) + len(settings.specials)
    if settings.size < need:
        raise ValueError(f"size={settings.size} is too little: bytes and special tokens are {need}")
    engine = tokenizers.Tokenizer(models.BPE())
    split = settings.split or "gpt-2"
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.pre_tokenizer = plain if split == "gpt-2" else word_split(split).build()
    engine.decoder = decoders.ByteLevel()
    size, specials = settings.size, settings.specials
    if split == "gpt-2":
        model = merging.fast_model(pieces, size, specials, count=count, text_bytes=text_bytes)
        if model is not None:
            engine.model = model
            return engine
    trainer = merging.byte_trainer(size, specials, show=show)
    engine.train_from_iterator(pieces, trainer, length=count)
    return engine


def wordpiece(
    pieces: Iterable[str],
    settings: TokenizerSettings,
    characters: Counter[str],
    *,
    show: bool,
    count: int,
) -> tokenizers.Tokenizer:
    """BERT's (Devlin et al. 2019): the merges of BPE, with ## before what continues a word."""
    engine = _wordpiece_engine(settings, {})
    letters = _letters(engine, characters, (settings.size - len(settings.specials)) // 3)
    inside = [f"##{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.size,
        special_tokens=[*settings.specials, *inside],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=show,
    )
    engine.train_from_iterator(pieces, trainer, length=count)
    # Anew, so that the letters inside words are no special tokens.
    return _wordpiece_engine(settings, json.loads(engine.to_str())["model"]["vocab"])


def _wordpiece_engine(
    settings: TokenizerSettings, vocabulary: dict[str, int]
) -> tokenizers.Tokenizer:
    unknown = settings.all_roles["unk_token"]
    engine = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    engine.normalizer = normalizers.BertNormalizer(lowercase=settings.lowercase is not False)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    return engine


def _letters(engine: tokenizers.Tokenizer, characters: Counter[str], room: int) -> list[str]:
    """The commonest characters after normalisation, equally common ones by their code points."""
    found: Counter[str] = Counter()
    for character, times in characters.items():
        for letter in engine.normalizer.normalize_str(character).split():
            found.update(dict.fromkeys(letter, times))
    common = sorted(found, key=lambda letter: (-found[letter], letter))
    return sorted(common[: min(ALPHABET, max(room, 1))])


def unigram(pieces: Iterable[str], settings: TokenizerSettings) -> tokenizers.Tokenizer:
    """SentencePiece's unigram model (Kudo 2018); bytes spell what its pieces cannot."""
    unknown = settings.all_roles["unk_token"]
    options: dict[str, Any] = {
        "model_type": "unigram",
        "vocab_size": settings.size,
        "hard_vocab_limit": False,  # a small text may not hold as many pieces
        "control_symbols": [name for name in settings.specials if name != unknown],
        "unk_piece": unknown,
        "bos_id": -1,
        "eos_id": -1,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "num_threads": THREADS,
        "minloglevel": 2,
    }
    library, file = _sentencepiece(), io.BytesIO()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=_lines(pieces), model_writer=file, **options
        )
    except RuntimeError as error:
        reason = str(error).partition("] ")[2] or str(error)
        raise ValueError(f"SentencePiece cannot train on this text: {reason}") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unigram.model"
        path.write_bytes(file.getvalue())
        return read_sentencepiece(path, {}).engine


def _sentencepiece() -> Any:
    try:
        return importlib.import_module("sentencepiece")
    except ModuleNotFoundError:
        raise ValueError(
            "kind=unigram needs sentencepiece: pip install 'limner[train]' brings it"
        ) from None


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines without their ends, of at most LINE bytes."""
    for piece in pieces:
        for line in piece.split("\n"):
            step = LINE if line.isascii() else LINE // 4
            yield from (line[start : start + step] for start in range(0, len(line), step))


def character(characters: Counter[str], settings: TokenizerSettings) -> tokenizers.Tokenizer:
    """A token for each of the commonest characters: BPE without a merge, which is fast."""
    room = settings.size - len(settings.specials)
    common = sorted(characters, key=lambda letter: (-characters[letter], letter))[:room]
    names = [*settings.specials, *sorted(common)]
    vocabulary = {name: number for number, name in enumerate(names)}
    unknown = settings.all_roles["unk_token"]
    engine = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
    engine.decoder = decoders.Fuse()
    return engine


def word(
    pieces: Iterable[str], settings: TokenizerSettings, *, show: bool, count: int
) -> tokenizers.Tokenizer:
    """A token for each of the commonest words, with the space before it, as GPT-2 cuts text."""
    unknown = settings.all_roles["unk_token"]
    engine = tokenizers.Tokenizer(models.WordLevel({}, unk_token=unknown))
    if settings.lowercase:
        engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.WordLevelTrainer(
        vocab_size=settings.size, special_tokens=settings.specials, show_progress=show
    )
    engine.train_from_iterator(pieces, trainer, length=count)
    return engine
