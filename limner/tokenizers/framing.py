"""What stands before and after a text: BOS and EOS, or [CLS] and [SEP]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers.processors import TemplateProcessing


@dataclass(frozen=True)
class Frame:
    """The special tokens around one text or two, by name; None for none."""

    before: str | None = None
    after: str | None = None
    between_twice: bool = False
    """RoBERTa's habit of two separators between two texts."""

    def build(self, engine: tokenizers.Tokenizer) -> Any:
        """The post-processor, or None if nothing is added."""
        names = [name for name in (self.before, self.after) if name is not None]
        if not names:
            return None
        start = [f"{self.before}:0"] if self.before is not None else []
        end = [f"{self.after}:0"] if self.after is not None else []
        return TemplateProcessing(
            single=[*start, "$A:0", *end],
            pair=[*start, "$A:0", *end, *self._second()],
            special_tokens=[(name, engine.token_to_id(name)) for name in dict.fromkeys(names)],
        )

    def _second(self) -> list[str]:
        """Around the second text; RoBERTa knows no second kind of text, and BOS is BERT's [CLS]."""
        if self.between_twice:
            return [f"{self.after}:0", "$B:0", f"{self.after}:0"]
        return ["$B:1", f"{self.after}:1"] if self.after is not None else ["$B:1"]
