"""Training a tokenizer: text is read once to see how much there is, and once or twice to learn.

Memory has a bound whatever the size of the corpus: a trainer keeps a table of the words that it has
seen, and it sees `sample_megabytes` of text at most.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import tokenizers
from tokenizers import AddedToken

from limner.tokenizers import training_kinds
from limner.tokenizers.tokenizer import Tokenizer
from limner.tokenizers.training_sample import Documents, Measure, Progress, measure, sample
from limner.tokenizers.training_settings import TokenizerSettings

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def train_tokenizer(
    documents: Documents,
    settings: TokenizerSettings,
    *,
    progress: Progress | None = None,
    show: bool = False,
) -> Tokenizer:
    """A tokenizer learnt from texts; the same texts and settings give the same one.

    Args:
        documents: gives the texts anew at each call.
        settings: what it should be.
        progress: called with (bytes read so far, whether that is all) in the first reading.
        show: let the trainer draw its own bars on standard error after that, if it has any.

    Raises:
        ValueError: there is no text, or settings that it does not allow.
        KeyboardInterrupt: at once, though the trainer may not be interruptible.
    """
    template = settings.template()
    found = measure(documents, settings.kind in ("wordpiece", "character"), progress)
    limit = settings.sample_bytes
    learnt = min(found.size, limit)
    _log.info("%.1f MB of text, %.1f MB learnt from", found.size / 1e6, learnt / 1e6)
    pieces = _Stoppable(lambda: sample(documents, found.size, limit))
    engine = _interruptible(lambda: _learn(pieces, settings, found, show=show), pieces.stop)
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in settings.specials])
    processor = settings.frame.build(engine)
    if processor is not None:
        engine.post_processor = processor
    return Tokenizer(engine, roles=settings.all_roles, chat_template=template)


def _learn(
    pieces: Iterable[str], settings: TokenizerSettings, found: Measure, *, show: bool
) -> tokenizers.Tokenizer:
    share = min(settings.sample_bytes / found.size, 1.0)
    count = round(found.pieces * share)
    if settings.kind == "bpe":
        learnt = min(settings.sample_bytes, found.size)
        return training_kinds.byte_level(
            pieces, settings, show=show, count=count, text_bytes=learnt
        )
    if settings.kind == "wordpiece":
        letters = found.characters
        return training_kinds.wordpiece(pieces, settings, letters, show=show, count=count)
    if settings.kind == "unigram":
        return training_kinds.unigram(pieces, settings)
    if settings.kind == "character":
        return training_kinds.character(found.characters, settings)
    return training_kinds.word(pieces, settings, show=show, count=count)


class _Stoppable(Iterable[str]):
    """Texts, read anew each time, whose reading can be told from another thread to fail."""

    def __init__(self, read: Callable[[], Iterator[str]]) -> None:
        self._read, self._stopped = read, threading.Event()
        self.stop: Callable[[], None] = self._stopped.set

    def __iter__(self) -> Iterator[str]:
        for piece in self._read():
            if self._stopped.is_set():
                raise KeyboardInterrupt
            yield piece


def _interruptible(work: Callable[[], Result], stop: Callable[[], None]) -> Result:
    """The result of some work that Ctrl-C ends at once.

    Merging happens in libraries that do not look for Ctrl-C, so they get a thread of their own,
    which is left behind.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)  # for the thread that waits

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        stop()
        thread.join(1)
        raise
    if errors:
        raise errors[0]
    return results[0]


def refuse_files(folder: Path) -> None:
    """ValueError if a folder that is to be made has files in it."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"'{folder}' exists: name another folder, or delete it first")


def save_new(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer into a new folder, all of it or nothing.

    Raises:
        ValueError: the folder has files in it.
        OSError: the disk is full; nothing is left behind.
    """
    refuse_files(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        tokenizer.save(staged)
        for path in staged.iterdir():
            _sync(path)
        if folder.is_dir():
            folder.rmdir()
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file on the disk, or an error, before it counts."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
