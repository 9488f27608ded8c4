"""Encoding, training tokenizers and preparing data, beside the libraries that do the same.

    python -m benchmarks.tokenization
    python -m benchmarks.tokenization --megabytes 1 --rounds 1

The text is Python's standard library. Programs that encode must give the same ids first: those of a
byte-level BPE that is trained here, and those of a SentencePiece model. They take turns within each
round, so that whatever else the machine does slows all of them; what counts are ratios of medians.
Data preparation is timed end to end, beside its floor: reading the text, and writing and hashing
bytes as many as its shards have. The last line is JSON. Peers: `make bench-peers`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from benchmarks.comparison import report
from benchmarks.sides import PEERS
from limner.data.preparing import prepare
from limner.data.sources import open_source, text_source
from limner.files import write_whole
from limner.tokenizers import Tokenizer, load_tokenizer
from limner.tokenizers.bulk import LIBRARIES, Encode, plain_spec
from limner.tokenizers.decoding import byte_alphabet
from limner.tokenizers.pretokenizers import GPT2
from limner.tokenizers.training import train_tokenizer
from limner.tokenizers.training_sample import pieces_of
from limner.tokenizers.training_settings import TokenizerSettings

GOALS = {"prepare, MB a second": 50.0}
SIZE = 8192 + 256 + 1

#: Does the work once.
Run = Callable[[], Any]


def main() -> None:
    options = parse_options()
    sys.path.append(str(PEERS))
    texts = some_texts(options.megabytes)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} files of Python's standard library, {size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratios = training(texts, folder, options.rounds)
        ratios |= encoding(texts, size, folder, options.rounds)
        ratios |= preparing(texts, size, folder, options.rounds)
    kept = {name: round(value, 3) for name, value in ratios.items()}
    report("tokenization", kept, GOALS)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def some_texts(megabytes: float) -> list[str]:
    texts, size = [], 0
    for text in open_source("python"):
        texts.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    return texts


def here(*names: str) -> list[str]:
    """The libraries of these that are installed; says which are not."""
    found = [name for name in names if importlib.util.find_spec(name) is not None]
    for name in sorted(set(names) - set(found)):
        print(f"{name} is not installed: run `make bench-peers`")
    return found


def take_turns(sides: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def tabulate(label: str, seconds: dict[str, float], size: int) -> dict[str, float]:
    """Print the speeds; how many times as fast as each other the first is."""
    for name, value in seconds.items():
        print(f"{label:24} {name:14} {value:8.3f} s {size / 1e6 / value:8.1f} MB/s")
    ours, *others = seconds
    return {f"{label} over {name}": seconds[name] / seconds[ours] for name in others}


# Training


def training(texts: Sequence[str], folder: Path, rounds: int) -> dict[str, float]:
    """8,192 merges. Ours and `tokenizers` come to the same; the others cut words otherwise."""
    file = folder / "all.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    settings = TokenizerSettings(size=SIZE)
    engine = train_tokenizer(lambda: texts, settings)
    engine.save(folder / "bpe")
    pieces = list(pieces_of(texts))
    raw = bare_training(pieces)
    assert raw.get_vocab() == engine.engine.get_vocab()
    sides: dict[str, Run] = {
        "limner": lambda: train_tokenizer(lambda: texts, settings),
        "tokenizers": lambda: bare_training(pieces),
    }
    others: dict[str, Run] = {
        "sentencepiece": lambda: train_sentencepiece(texts),
        "rustbpe": lambda: train_rustbpe(texts),
        "gigatok": lambda: train_gigatok(file),
    }
    sides |= {name: others[name] for name in here(*others)}
    (folder / "sentencepiece.model").write_bytes(train_sentencepiece(texts))
    return tabulate("training", take_turns(sides, rounds), file.stat().st_size)


def bare_training(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer as Engine
    from tokenizers import models, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    return engine


def train_sentencepiece(texts: Sequence[str]) -> bytes:
    library, file = importlib.import_module("sentencepiece"), io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n")),
        model_writer=file,
        model_type="bpe",
        vocab_size=SIZE,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=3,
    )
    return file.getvalue()


def train_rustbpe(texts: Sequence[str]) -> None:
    engine = importlib.import_module("rustbpe").Tokenizer()
    engine.train_from_iterator(iter(texts), SIZE - 1)


def train_gigatok(file: Path) -> None:
    importlib.import_module("gigatok").train_bpe(file, SIZE, [])


# Encoding


def encoding(texts: list[str], size: int, folder: Path, rounds: int) -> dict[str, float]:
    """A byte-level BPE, and a SentencePiece model."""
    byte_level = load_tokenizer(folder / "bpe")
    sides: dict[str, Run] = {
        "limner": lambda: byte_level.bulk.encode(texts).ids,
        "tokenizers": lambda: flat(
            [
                one.ids
                for one in byte_level.engine.encode_batch_fast(texts, add_special_tokens=False)
            ]
        ),
    }
    if here("tiktoken"):
        other = tiktoken_of(byte_level)
        sides["tiktoken"] = lambda: flat(other.encode_ordinary_batch(texts))
    for name in here(*LIBRARIES):
        sides[name] = partial(ids_by, LIBRARIES[name](plain_spec(byte_level)), texts)
    ratios = compared("encoding", sides, size, rounds)
    print(f"limner encoded with {byte_level.bulk.library}")
    return ratios | encoding_sentencepiece(texts, size, folder / "sentencepiece.model", rounds)


def encoding_sentencepiece(
    texts: list[str], size: int, path: Path, rounds: int
) -> dict[str, float]:
    library = importlib.import_module("sentencepiece")
    theirs, ours = library.SentencePieceProcessor(model_file=str(path)), load_tokenizer(path)
    sides: dict[str, Run] = {
        "limner": lambda: ours.bulk.encode(texts).ids,
        "sentencepiece": lambda: flat(theirs.encode(texts, num_threads=-1)),
    }
    return compared("encoding, SentencePiece", sides, size, rounds)


def compared(label: str, sides: dict[str, Run], size: int, rounds: int) -> dict[str, float]:
    """Take turns, those that give the same ids as the first."""
    first, *others = sides
    expected = sides[first]()
    for name in others:
        if not numpy.array_equal(sides[name](), expected):
            print(f"{label}: {name} has other ids, and is left out")
            del sides[name]
    return tabulate(label, take_turns(sides, rounds), size)


def ids_by(encode: Encode, texts: list[str]) -> Any:
    return encode(texts).ids


def flat(documents: Sequence[Sequence[int]]) -> Any:
    return numpy.concatenate([numpy.asarray(ids, numpy.uint32) for ids in documents])


def tiktoken_of(tokenizer: Tokenizer) -> Any:
    """The same tokenizer in tiktoken, which merges in the order of ids."""
    spelled = byte_alphabet()
    vocabulary = json.loads(tokenizer.engine.to_str())["model"]["vocab"]
    ranks = {
        bytes(spelled[letter] for letter in token): number
        for token, number in vocabulary.items()
        if number not in tokenizer.special_ids
    }
    return importlib.import_module("tiktoken").Encoding(
        "limner", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={}
    )


# Preparing


def preparing(texts: Sequence[str], size: int, folder: Path, rounds: int) -> dict[str, float]:
    """From files to shards; the floor reads the files, and writes and hashes as many bytes."""
    source = folder / "texts"
    source.mkdir()
    for number, text in enumerate(texts):
        (source / f"{number:05}.txt").write_text(text, encoding="utf-8")
    tokenizer = load_tokenizer(folder / "bpe")

    def ours() -> int:
        with tempfile.TemporaryDirectory() as made:
            return prepare(text_source(source), tokenizer, Path(made)).tokens

    shard = bytes(2 * ours())

    def floor() -> None:
        for _ in text_source(source):
            pass
        with tempfile.TemporaryDirectory() as made:
            write_whole(Path(made) / "shard", [shard])
        hashlib.sha256(shard)

    seconds = take_turns({"limner": ours, "floor": floor}, rounds)
    ratios = tabulate("prepare", seconds, size)
    return ratios | {"prepare, MB a second": size / 1e6 / seconds["limner"]}


if __name__ == "__main__":
    main()
