"""`limner transcribe`: write down what is said in a sound file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from limner.commands.loading import AnyModelSettings
from limner.commands.terminal import harmless


class Command(AnyModelSettings):
    """Write down what is said in a WAV file, with a model such as Whisper."""

    positional: ClassVar[tuple[str, ...]] = ("model", "file")

    file: Path
    """the WAV file"""
    language: str | None = None
    """the language that is spoken, such as en; not given: found out"""
    task: Literal["transcribe", "translate"] = "transcribe"
    """translate writes English, whatever is spoken"""
    max_tokens: int | None = None
    """tokens to write at most for each piece of 30 seconds"""


def run(settings: Command) -> None:
    """Print the text."""
    from limner.language_model import load_transcriber

    if not settings.file.is_file():
        raise FileNotFoundError(f"no sound file '{settings.file}': give a WAV file that exists")
    transcriber = settings.load_with(load_transcriber)
    text = transcriber.transcribe(
        settings.file,
        language=settings.language,
        task=settings.task,
        max_tokens=settings.max_tokens,
    )
    print(harmless(text))
