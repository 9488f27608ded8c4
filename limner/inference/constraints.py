"""Answers held to a form: a JSON Schema, a regular expression, a grammar, or a list of texts.

llguidance says after each token which may follow (a lexer of regular-expression derivatives under
an Earley parser). A token is allowed exactly if the text, as the decoder writes it, can still
become one of the form's; the answer may end exactly where the form may. What the model makes of the
allowed tokens is its own: their logits are not changed.

Legend: V vocabulary.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy
import torch
from torch import Tensor

from limner.inference.json_schema import check_schema

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

    from limner.tokenizers import Tokenizer

Kind = Literal["schema", "regex", "grammar", "choice"]
KINDS: tuple[Kind, ...] = ("schema", "regex", "grammar", "choice")

#: Space between the parts of a JSON text: a blank, or a new line and its indentation. Without an
#: end to it a small model would fill its answer with space.
SPACED = {"whitespace_pattern": "[ ]?|\\r?\\n[ \\t]{0,40}"}

#: A JSON text in one line, as models are trained to write arguments.
ONE_LINE = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}

#: Compiled forms that are kept.
KEPT = 128

#: What an error begins with when an answer's form becomes too complex on the way.
LOST = "the form of the answer cannot be followed further"

#: Characters of a reason that are told.
TOLD = 200

# Forced text would otherwise be held to its one canonical tokenization: more than a mask.
_SETTINGS = '\n%llguidance {"no_forcing": true}\n'


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must look like.

    Made by `schema`, `regex`, `grammar` or `choice`; not yet known to be sound (`Grammars` is who
    finds out), except for a schema's keywords.
    """

    kind: Kind
    lark: str
    """The form as a grammar in llguidance's dialect of Lark, with a rule `start`."""

    @classmethod
    def schema(cls, schema: Any) -> Form:
        """JSON texts that are valid under a JSON Schema: an object, its text, or a pydantic model.

        Raises ValueError that names the keyword that cannot be followed.
        """
        return cls("schema", f"start: {json_rule(schema)}")

    @classmethod
    def regex(cls, pattern: str) -> Form:
        """Texts that match a regular expression from beginning to end.

        The syntax is that of Rust's, with digits and letters of words in ASCII as in JSON Schema.
        """
        return cls("regex", f"start: /{_llguidance().regex_to_lark(pattern, 'dw')}/")

    @classmethod
    def grammar(cls, lark: str) -> Form:
        """Texts of a context-free grammar in llguidance's dialect of Lark."""
        return cls("grammar", lark)

    @classmethod
    def choice(cls, texts: Iterable[str]) -> Form:
        """One of several texts. Raises ValueError if there is none."""
        given = [texts] if isinstance(texts, str) else list(texts)
        if not given or not all(isinstance(text, str) for text in given):
            raise ValueError(f"choice must be a list of texts, at least one, not {given!r}")
        return cls("choice", "start: " + " | ".join(map(json.dumps, given)))

    @classmethod
    def of(cls, **given: Any) -> Form | None:
        """The form among options by the names of `KINDS`, of which None are not given.

        Raises ValueError if there are two, or it cannot be followed.
        """
        asked = {name: value for name, value in given.items() if value is not None}
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other: give one of them")
        for name, value in asked.items():
            form: Form = getattr(cls, name)(value)
            return form
        return None


def json_rule(schema: Any, spacing: Mapping[str, Any] = SPACED) -> str:
    """The right side of a Lark rule for the JSON texts that are valid under a schema.

    Args:
        schema: an object, its text, or a pydantic model.
        spacing: the space between the parts, `SPACED` or `ONE_LINE`.

    Raises ValueError that names the keyword that cannot be followed.
    """
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if isinstance(schema, str):
        schema = _parsed(schema)
    try:
        check_schema(schema)
    except ValueError as error:
        raise ValueError(f"schema cannot be followed: {error}") from None
    if schema is False:
        raise ValueError("schema cannot be followed: false allows no text at all")
    options = {**spacing, "lenient": False}
    fields = {} if schema is True else dict(schema)
    return f"%json {json.dumps({**fields, 'x-guidance': options})}"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"schema is no JSON: {error}") from None


class Constraint:
    """Follows one answer through a form.

    All that it knows it has from the tokens that it is shown, so an answer that is interrupted, put
    back and computed again is followed as if nothing had happened.
    """

    def __init__(self, matcher: LLMatcher, words: Words) -> None:
        self._matcher, self._words = matcher, words
        self._taken: list[int] | None = []
        self.ends: Collection[int] = ()
        """Tokens that end the answer, allowed where the form may end; the engine says which."""
        self.failure: str | None = None
        """Why no token is allowed any more, if the form has become too complex to follow."""

    def allowed(self, generated: Sequence[int]) -> Tensor:
        """(V,) bool: the tokens that may come after the answer so far."""
        self._follow(generated)
        packed = numpy.frombuffer(self._matcher.compute_bitmask(), numpy.uint8)
        if self._matcher.is_error():
            self.failure = _failure(self._matcher.get_error())
            return torch.zeros(self._words.size, dtype=torch.bool)
        bits = numpy.unpackbits(packed, bitorder="little")
        mask = torch.from_numpy(self._words.mask(bits, self._words.begun(generated)).astype(bool))
        # llguidance lets an answer end, too, that no token can bring to its end
        mask[list(self.ends)] = self._matcher.is_accepting()
        return mask

    def valid(self, generated: Sequence[int], tokens: Sequence[int]) -> int:
        """How many of `tokens` may come after the answer so far, one after the other."""
        self._follow(generated)
        if self._matcher.is_error():
            return 0
        translated = self._words.translated([*generated, *tokens], len(generated))
        return self._matcher.validate_tokens(translated)

    def _follow(self, generated: Sequence[int]) -> None:
        """Take the tokens that are new. Left by an interrupt, it begins anew the next time."""
        taken, self._taken = self._taken, None
        if taken is None or self._matcher.is_error():
            self._matcher.reset()
            taken = []
        same = _in_common(taken, generated)
        if same < len(taken):
            self._matcher.rollback(len(taken) - same)
        self._matcher.consume_tokens(self._words.translated(generated, same))
        self._taken = list(generated)


def _in_common(some: list[int], others: Sequence[int]) -> int:
    """How many tokens two answers begin with in common."""
    if some == list(others[: len(some)]):
        return len(some)
    return next(
        place for place, token in enumerate(some) if [token] != [*others[place : place + 1]]
    )


def _failure(message: str) -> str | None:
    """Why a form cannot be followed; None if it can, but the vocabulary has no token for it."""
    return None if message.startswith("NoExtension") else f"{LOST}: {_reason(message)}"


class Grammars:
    """Compiles forms for the tokens of one model.

    Args:
        tokenizer: the model's.
        vocabulary: V, the size of the network's; the tokenizer's may be smaller.

    Raises ValueError for a tokenizer whose text cannot be followed token by token, and
    ModuleNotFoundError that says what to install.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        guidance = _llguidance()
        self._words = Words(tokenizer, vocabulary)
        self._tokenizer: LLTokenizer = guidance.LLTokenizer(
            self._words, n_vocab=len(self._words.tokens), eos_token=[self._words.end]
        )
        self._compiled = functools.lru_cache(KEPT)(self._compile)

    def constraint(self, form: Form) -> Constraint:
        """What follows one answer. Raises ValueError, in one line, for a form that is not sound."""
        return Constraint(self._compiled(form).deep_copy(), self._words)

    def _compile(self, form: Form) -> LLMatcher:
        matcher = _llguidance().LLMatcher
        compiled: LLMatcher = matcher(
            self._tokenizer, matcher.grammar_from_lark(form.lark + _SETTINGS), log_level=0
        )
        # what llguidance would pass over, it warns of
        for message in [compiled.get_error(), *compiled.get_grammar_warnings()]:
            if message:
                reason = _reason(message, placed=form.kind == "grammar")
                raise ValueError(f"{form.kind} cannot be followed: {reason}")
        return compiled


class Words:
    """A vocabulary as llguidance is given it: what each token adds to the text.

    In some vocabularies a token adds less to the text when it stands first (the space before a word
    is left out). Such tokens are there twice, the second time as they stand first. One token more
    stands for the end.

    Attributes:
        size: V.
        tokens: what each adds; V of them, the end, and those that stand first.
        end: the id of the end.
    """

    # what llguidance asks for
    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        spelling = tokenizer.spelling
        if spelling.held:
            raise ValueError(
                "an answer cannot be held to a form with this tokenizer, whose words end in spaces"
            )
        self.size = self.end = vocabulary
        self.special = frozenset(i for i in tokenizer.special_ids if i < vocabulary)
        ids = range(min(vocabulary, tokenizer.vocabulary_size))
        self.tokens = [
            tokenizer.token(i).encode() if i in self.special else spelling.later(i) for i in ids
        ]
        self.tokens += [b""] * (vocabulary - len(ids)) + [b"<limner:end>"]
        self.special_token_ids = sorted({*self.special, self.end})
        self.eos_token_id = self.end
        lead = spelling.lead.encode()
        firsts = {i: spelling.first(i).removeprefix(lead) for i in ids if i not in self.special}
        changed = [i for i, spelled in firsts.items() if spelled != self.tokens[i]]
        self._first: NDArray[numpy.int64] = numpy.arange(vocabulary)
        self._first[changed] = len(self.tokens) + numpy.arange(len(changed))
        self.tokens += [firsts[i] for i in changed]

    def __call__(self, text: bytes) -> list[int]:
        """Never needed, since no text is forced."""
        raise AssertionError(f"llguidance wants the tokens of {text!r}")

    def begun(self, generated: Iterable[int]) -> bool:
        """Whether there is any text yet; special tokens are none."""
        return any(token not in self.special for token in generated)

    def translated(self, generated: Sequence[int], start: int) -> list[int]:
        """The tokens from `start` on as llguidance knows them."""
        tokens = list(generated[start:])
        if not self.begun(generated[:start]):
            for place, token in enumerate(tokens):
                tokens[place] = int(self._first[token])
                if token not in self.special:
                    break
        return tokens

    def mask(self, bits: NDArray[numpy.uint8], begun: bool) -> NDArray[numpy.uint8]:
        """One bit for each token of the vocabulary, (V,), from those of llguidance's."""
        return bits[: self.size] if begun else bits[self._first]


REWORDED = (
    (r'Unimplemented keys: \["(.*)"\]', r"the keyword \1 is not supported"),
    (r"Unknown format: (.*)", r"the format '\1' is not supported"),
    (
        r"oneOf constraints are not supported.*",
        "the keyword oneOf is supported only if what its schemas require excludes each other: "
        "use anyOf",
    ),
)


def _reason(message: str, placed: bool = False) -> str:
    """What llguidance complains of, in one line; `placed` keeps the place in the text."""
    lines = [line.strip() for line in message.strip().splitlines()]
    reason = lines[0].replace("failed to compile JSON schema: ", "")
    place = re.match(r"(?:at )?(\d+)\((\d+)\): ", reason)
    reason = reason[place.end() :] if place else reason
    because = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if because and reason.endswith("regex parse error:"):
        reason = f"{because[0]}, in the expression {lines[1]!r}"
    for pattern, words in REWORDED:
        reason = re.sub(pattern, words, reason)
    reason = reason.replace('", "', ", ")[:TOLD]
    return f"line {place[1]}, column {place[2]}: {reason}" if place and placed else reason


def _llguidance() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "holding an answer to a form needs llguidance: pip install 'limner[structured]'",
            name=error.name,
        ) from None
    return llguidance


def form_of(options: Mapping[str, Any]) -> tuple[Form | None, Mapping[str, Any]]:
    """The form among sampling options, and the other options. Raises ValueError as `Form.of`."""
    forms = {kind: options[kind] for kind in KINDS if kind in options}
    others = {name: value for name, value in options.items() if name not in KINDS}
    return Form.of(**forms), others
