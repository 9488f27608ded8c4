"""`limner fill-mask`: fill the blanks of a text."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from limner.commands.loading import AnyModelSettings
from limner.commands.terminal import harmless, read_text


class Command(AnyModelSettings):
    """Fill the blanks of a text.

    Blanks are written as the model's mask token, such as [MASK] or <mask>. The most probable tokens
    of each are printed, with their probabilities.
    """

    text: str | None = None
    """the text with blanks; not given: standard input"""
    file: Path | None = None
    """read the text from this file"""
    top: int = Field(default=5, ge=1)
    """how many tokens to print for each blank"""


def run(settings: Command) -> None:
    """Print a line for each candidate, and an empty one between blanks."""
    from limner.language_model import load_mask_filler

    text = read_text(settings.text, settings.file, "text")
    for number, blank in enumerate(settings.load_with(load_mask_filler).fill(text)):
        if number:
            print()
        for candidate in blank.top(settings.top):
            print(f"{candidate.probability:7.2%}  {harmless(candidate.text)}")
