"""`limner embed`: turn texts into vectors, or say how alike they are."""

from __future__ import annotations

import json
from pathlib import Path

from limner.commands.loading import AnyModelSettings
from limner.commands.terminal import read_text


class Command(AnyModelSettings):
    """Turn texts into vectors, or say how alike they are.

    The text is the second argument; --file, or standard input, has one text in each line. Each
    vector is printed as a line of JSON, with its text.
    """

    text: str | None = None
    """the text"""
    file: Path | None = None
    """read texts from this file, one in each line"""
    to: str | None = None
    """print how alike each text is to this one, the cosine, instead of vectors"""
    truncate: bool = False
    """leave out the end of a text that is too long for the model"""


def run(settings: Command) -> None:
    """Print a line for each text."""
    from limner.language_model import load_embedder

    lines = read_text(settings.text, settings.file, "text").splitlines()
    texts = [settings.text] if settings.text is not None else [line for line in lines if line]
    embedder = settings.load_with(load_embedder)
    vectors = embedder.embed(texts, truncate=settings.truncate)
    if settings.to is None:
        for text, vector in zip(texts, vectors.float().tolist(), strict=True):
            print(json.dumps({"text": text, "embedding": vector}, ensure_ascii=False))
        return
    alike = embedder.cosines(embedder.embed([settings.to], truncate=settings.truncate), vectors)[0]
    for text, cosine in zip(texts, alike.tolist(), strict=True):
        line = {"text": text, "similarity": round(cosine, 6)}
        print(json.dumps(line, ensure_ascii=False))
