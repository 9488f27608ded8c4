"""Training an n-gram model: tokens to disk, sort, count, smooth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from limner.models.ngram.counting import adjusted_counts, write_tokens
from limner.models.ngram.model import NGramModel
from limner.models.ngram.smoothing import smooth
from limner.models.ngram.vocabulary import NGramVocabulary

#: Bytes that sorting may use unless told otherwise.
MEMORY = 1 << 30


def train_on_text(
    lines: Iterable[str], order: int = 5, memory: int = MEMORY, folder: Path | None = None
) -> NGramModel:
    """A model of words between ASCII white space; each line is a sentence, empty lines count.

    Equal to KenLM's `lmplz --discount_fallback`. Arguments as for `train_on_tokens`.

    Raises ValueError if the text is empty or holds `<s>`, `</s>` or `<unk>`.
    """
    vocabulary = NGramVocabulary()
    return train_on_tokens(map(vocabulary.grow, lines), vocabulary, order, memory, folder)


def train_on_tokens(
    sentences: Iterable[Sequence[int]],
    vocabulary: NGramVocabulary,
    order: int = 5,
    memory: int = MEMORY,
    folder: Path | None = None,
) -> NGramModel:
    """A model with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998).

    The text is read once and never held: its tokens go to disk, 4 bytes each, and n-grams are
    sorted in runs. The model's own arrays are memory maps of files, deleted when no longer used.

    Args:
        sentences: token ids of each; the model begins and ends them itself.
        vocabulary: what the ids mean, `NGramVocabulary.of_tokens(size)` for those of a tokenizer.
            It may still grow as sentences are read.
        order: the length of the longest n-grams.
        memory: bytes that sorting may use; more is only used for the vocabulary, and for one
            sentence or one context's words if those are larger.
        folder: where temporary files go, about 100 bytes a token; the system's place for such
            if not given.

    Raises ValueError if `order` is below 1 or there are no sentences.
    """
    if order < 1:
        raise ValueError(f"an n-gram model's order must be 1 or more, not {order}")
    # Where open files cannot be deleted, the model's stay until the system clears them.
    temporary = tempfile.TemporaryDirectory(
        prefix="limner-ngram-", dir=folder, ignore_cleanup_errors=True
    )
    with temporary as name:
        working = Path(name)
        tokens = write_tokens(sentences, vocabulary.begin, vocabulary.end, working)
        if not len(tokens):
            raise ValueError("an n-gram model needs at least one sentence: the text is empty")
        rows = max(1024, memory // (32 * order + 96))
        counts = adjusted_counts(tokens, vocabulary.begin, len(vocabulary), order, rows, working)
        return smooth(vocabulary, counts, rows, working)
