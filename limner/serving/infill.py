"""Filling in the middle (Bavarian et al. 2022): what stands before and after a gap, as a prompt."""

from __future__ import annotations

from limner.tokenizers import Tokenizer

#: How vocabularies spell the tokens before the prefix, before the suffix, and before the middle.
SPELLINGS = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)

#: Tokens with which such models end the middle, beside their end of text.
ENDS = (
    "▁<EOT>", "<fim_pad>", "<fim-pad>", "<|fim_pad|>", "<|file_sep|>", "<file_sep>",
    "<|repo_name|>",
)  # fmt: skip


def infill(tokenizer: Tokenizer, prefix: str | list[int], suffix: str) -> list[int]:
    """The prompt that asks for what stands between two texts.

    Raises ValueError if the vocabulary has no tokens for that.
    """
    before, after, middle = _marks(tokenizer)
    start = _start(tokenizer)
    if isinstance(prefix, str):
        prefix = tokenizer.encode(prefix, add_special_tokens=False)
    behind = tokenizer.encode(suffix, add_special_tokens=False)
    return [*start, before, *prefix, after, *behind, middle]


def ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that end the middle."""
    found = (tokenizer.token_id(name) for name in ENDS)
    return tuple(token for token in found if token is not None)


def _marks(tokenizer: Tokenizer) -> tuple[int, int, int]:
    for names in SPELLINGS:
        before, after, middle = (tokenizer.token_id(name) for name in names)
        if before is not None and after is not None and middle is not None:
            return before, after, middle
    raise ValueError(
        "suffix needs a model that fills in the middle, and this one's vocabulary has no tokens "
        "for that, such as <fim_prefix>: leave it out"
    )


def _start(tokenizer: Tokenizer) -> list[int]:
    """The token with which this model's input begins, if it has one."""
    begun = tokenizer.encode("")[:1]
    return begun if begun == [tokenizer.bos_id] else []
