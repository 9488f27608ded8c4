"""What another process does to learn merges: gigatok prints as it works, which nobody should see.

    python merging_process.py MERGES < TEXTS

Texts end with a byte that UTF-8 does not have. The answer, on standard output, is JSON: how often
there is each word, and the merges, none if there are not twice as many words. Merged bytes are
written as the characters of their numbers. Nothing of limner is imported, which this process need
not find.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

END = b"\xff"


def main() -> None:
    """Read all texts, and answer."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it though Rust does not look
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    library = importlib.import_module("gigatok.gigatok_rs")
    texts, wanted, merges = sys.stdin.buffer.read(), int(sys.argv[1]), []
    words = library.pretokenized_counts(texts, END)
    # With fewer words the last merges are of pairs that are rare, which it looks for very slowly.
    if len(words) >= 2 * wanted:
        _, merges = library.train_bpe(texts, 256 + wanted, [], "huggingface", END)
    with answer:
        json.dump(
            {
                "words": {word.decode("utf-8", "replace"): count for word, count in words},
                "merges": [[part.decode("latin-1") for part in pair] for pair in merges],
            },
            answer,
        )


if __name__ == "__main__":
    main()
