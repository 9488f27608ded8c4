"""The words of an n-gram model, and the three that stand for something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"

#: Words as KenLM cuts them: ASCII white space ends one, a no-break space is part of one.
split = re.compile(r"[^\t-\r ]+").findall


class NGramVocabulary:
    """Words and their ids. `<unk>`, `<s>` and `</s>` are among them, wherever they stand."""

    def __init__(self, words: Iterable[str] = (UNKNOWN, BEGIN, END)) -> None:
        """Number the words as they come.

        Raises ValueError if a word comes twice or one of the three is missing.
        """
        self.words = list(words)
        self.ids = {word: number for number, word in enumerate(self.words)}
        if len(self.ids) < len(self.words):
            twice = next(word for n, word in enumerate(self.words) if self.ids[word] != n)
            raise ValueError(f"the word '{twice}' comes twice in the vocabulary: keep one")
        for word in (UNKNOWN, BEGIN, END):
            if word not in self.ids:
                raise ValueError(f"the vocabulary has no '{word}': add it")
        self.unknown, self.begin, self.end = (self.ids[w] for w in (UNKNOWN, BEGIN, END))

    @classmethod
    def of_tokens(cls, size: int) -> NGramVocabulary:
        """The ids 0 to `size` - 1 of a tokenizer, each its own word; the three follow them."""
        return cls([*map(str, range(size)), UNKNOWN, BEGIN, END])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Ids of the words between ASCII white space."""
        unknown, ids = self.unknown, self.ids
        return [ids.get(word, unknown) for word in split(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Words with spaces between."""
        return " ".join(self.words[token] for token in tokens)

    def grow(self, text: str) -> list[int]:
        """Ids of the words between ASCII white space, new ones numbered.

        Raises ValueError if one of the three special words stands in the text.
        """
        ids = self.ids
        tokens = []
        for word in split(text):
            token = ids.get(word)
            if token is None:
                token = ids[word] = len(self.words)
                self.words.append(word)
            tokens.append(token)
        for special in {self.unknown, self.begin, self.end}.intersection(tokens):
            raise ValueError(
                f"the text has the word '{self.words[special]}', which the model needs for itself: "
                "take it out or write it otherwise"
            )
        return tokens
