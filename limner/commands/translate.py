"""`limner translate`: turn a text into another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from limner.commands.loading import AnyModelSettings
from limner.commands.terminal import harmless, read_text


class Command(AnyModelSettings):
    """Turn a text into another: translation, summary, answer.

    For encoder-decoders. What the model was taught may have to be said first: "translate English to
    German: ...". Without an option that says how, the model's own settings count.
    """

    text: str | None = None
    """the text; not given: standard input"""
    file: Path | None = None
    """read the text from this file"""
    target: str | None = None
    """the token that the answer begins with, in models of many languages: de_DE"""
    parse_special: bool = False
    """read special tokens out of the text and write the answer's: <extra_id_0> is what a T5 fills,
    <mask> what a BART does"""
    num_beams: int | None = None
    """how many beginnings are followed at once; 1 takes the best token each time"""
    length_penalty: float | None = None
    """above 0 favours long answers, below 0 short ones"""
    early_stopping: bool | Literal["never"] | None = None
    """stop at num_beams finished answers; never: when none could be better"""
    no_repeat_ngram_size: int | None = None
    """never repeat so many tokens in a row"""
    temperature: float | None = None
    """draw at random instead of searching; 1 draws from the model's own distribution"""
    top_k: int | None = None
    """draw from the k most probable tokens only"""
    top_p: float | None = None
    """draw from the fewest tokens that together have this probability"""
    seed: int | None = None
    """makes a random answer repeatable"""
    max_tokens: int | None = None
    """tokens to write at most"""


OPTIONS = (
    *("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size"),
    *("temperature", "top_k", "top_p", "seed", "max_tokens"),
)


def run(settings: Command) -> None:
    """Print the answer."""
    from limner.language_model import load_translator

    text = read_text(settings.text, settings.file, "text")
    values = {name: getattr(settings, name) for name in OPTIONS}
    options = {name: value for name, value in values.items() if value is not None}
    translator = settings.load_with(load_translator)
    special = settings.parse_special
    answer = translator.translate(text, target=settings.target, parse_special=special, **options)
    print(harmless(answer))
