"""The tokenizer: one engine (Hugging Face `tokenizers`) under every file format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tokenizers
from tokenizers import AddedToken

from limner.tokenizers import decoding, folder
from limner.tokenizers.display import Piece, Tokenization
from limner.tokenizers.encoding import Placed, PlainEncoder, Position
from limner.tokenizers.partition import ControlTokens

if TYPE_CHECKING:
    from limner.tokenizers.bulk import BulkEncoder
    from limner.tokenizers.chat import ChatTemplate
    from limner.tokenizers.conversation import Conversation


class Pair(NamedTuple):
    """Two texts as one sequence: token ids (T,) and which text each belongs to (T,), 0 or 1."""

    ids: list[int]
    segments: list[int]


class _Frame(NamedTuple):
    """What the post-processor writes before, between and after texts."""

    before: list[int]
    between: list[int]
    after: list[int]
    segments: tuple[int, int, int, int, int]


class Tokenizer:
    """Text to token ids and back.

    Text never becomes a special token unless `parse_special` is given, so text from a user cannot
    end a turn or begin one.

    Args:
        engine: the tokenizer of the `tokenizers` package; it belongs to this object from now on,
            and truncation and padding are switched off.
        roles: what special tokens are for, by their names in tokenizer_config.json
            (``{"bos_token": "<s>", ...}``).
        chat_template: how messages become text, if the model chats.
        stop_ids: tokens that end an answer, beside the end of text.
        maximum_length: the longest input that the model was made for, in tokens, if it is stated.
    """

    def __init__(
        self,
        engine: tokenizers.Tokenizer,
        *,
        roles: Mapping[str, str] | None = None,
        chat_template: ChatTemplate | None = None,
        stop_ids: Iterable[int] = (),
        maximum_length: int | None = None,
    ) -> None:
        engine.no_truncation()
        engine.no_padding()
        self.engine = engine
        self.roles = dict(roles or {})
        self.chat_template = chat_template
        self.maximum_length = maximum_length
        self._make_special(self.roles.values())
        ends = {self.eos_id} - {None}
        self.stop_ids: frozenset[int] = frozenset(ends.union(stop_ids))  # type: ignore[arg-type]
        self.plain = PlainEncoder(engine, self.special_ids, self.unknown_id)

    def _make_special(self, names: Iterable[str]) -> None:
        """A token with a role is special, even where tokenizer.json does not list it."""
        special = {token.content for token in self.added_tokens.values() if token.special}
        missing = [AddedToken(name, normalized=False) for name in names if name not in special]
        if missing:
            self.engine.add_special_tokens(missing)
            del self.added_tokens

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocabulary_size:,} tokens)"

    # Vocabulary

    @cached_property
    def added_tokens(self) -> dict[int, AddedToken]:
        """Tokens that stand outside the model's own vocabulary or are special, by id."""
        return dict(self.engine.get_added_tokens_decoder())

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that only templates and programs write, never text."""
        return frozenset(i for i, token in self.added_tokens.items() if token.special)

    @cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest token id."""
        return max([self.engine.get_vocab_size() - 1, *self.added_tokens]) + 1

    @cached_property
    def kind(self) -> str:
        """What kind of tokenizer this is, in words."""
        model = self.engine.model
        if isinstance(model, tokenizers.models.BPE):
            return _kind_of_bpe(self.engine)
        names = {"Unigram": "unigram", "WordPiece": "WordPiece", "WordLevel": "word"}
        return names[type(model).__name__]

    def token(self, token_id: int) -> str:
        """A token as the vocabulary spells it.

        Raises:
            ValueError: if there is no such token.
        """
        spelled: str | None = self.engine.id_to_token(token_id) if token_id >= 0 else None
        if spelled is None:
            raise ValueError(f"no token {token_id}: ids run from 0 to {self.vocabulary_size - 1}")
        return spelled

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        found: int | None = self.engine.token_to_id(token)
        return found

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text that it does not begin.

        Raises:
            ValueError: if there is no such token.
        """
        self.token(token_id)
        return self.spelling.later(token_id)

    def role_id(self, role: str) -> int | None:
        """The id of the token with a role ("bos_token", "eos_token", ...), or None."""
        return self.token_id(self.roles[role]) if role in self.roles else None

    @property
    def bos_id(self) -> int | None:
        """Begins a text."""
        return self.role_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """Ends a text."""
        return self.role_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        """Fills up rows of a batch."""
        return self.role_id("pad_token")

    @property
    def unknown_id(self) -> int | None:
        """Stands for text that the vocabulary cannot write."""
        return self.role_id("unk_token")

    @property
    def mask_id(self) -> int | None:
        """Stands where a masked language model has to guess."""
        return self.role_id("mask_token")

    @property
    def separator_id(self) -> int | None:
        """Stands between two texts, and after the last ([SEP])."""
        return self.role_id("sep_token")

    @property
    def class_id(self) -> int | None:
        """Stands first, where an encoder sums up its input ([CLS])."""
        return self.role_id("cls_token")

    # Text to tokens

    def encode(
        self, text: str, *, add_special_tokens: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            add_special_tokens: add what the model's input begins and ends with (BOS, [CLS], ...).
            parse_special: read special tokens out of the text. Never for text from a user. A BOS
                that the text itself begins with is not doubled.
        """
        body = self._parsed(text) if parse_special else self.plain.ids(text)
        return self._framed(body) if add_special_tokens else body

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, parse_special: bool = False
    ) -> list[list[int]]:
        """Token ids of many texts, encoded in parallel; the options are those of `encode`."""
        bodies = [self._parsed(t) for t in texts] if parse_special else self.plain.batch(texts)
        return [self._framed(body) for body in bodies] if add_special_tokens else bodies

    @cached_property
    def bulk(self) -> BulkEncoder:
        """Encodes whole corpora, by a faster library where one gives the same ids."""
        from limner.tokenizers.bulk import BulkEncoder

        return BulkEncoder(self)

    def encode_pair(self, first: str, second: str) -> Pair:
        """Two texts as one sequence, with the special tokens that the model wants around them."""
        frame = self._pair_frame
        parts = [frame.before, self.plain.ids(first), frame.between]
        parts += [self.plain.ids(second), frame.after]
        segments = [
            segment for part, segment in zip(parts, frame.segments, strict=True) for _ in part
        ]
        return Pair([token_id for part in parts for token_id in part], segments)

    def tokenization(self, text: str, *, add_special_tokens: bool = False) -> Tokenization:
        """A text's tokens for people to look at; shows itself in colour in a notebook."""
        placed = self.plain.placed(text)
        if add_special_tokens:
            before, after = self.frame
            end = len(text)
            placed = (
                [Placed(i, 0, 0) for i in before] + placed + [Placed(i, end, end) for i in after]
            )
        return Tokenization([self._piece(text, token) for token in placed])

    def pieces(self, text: str, *, add_special_tokens: bool = False) -> list[Piece]:
        """The tokens of a text with their places in it."""
        return self.tokenization(text, add_special_tokens=add_special_tokens).pieces

    def _piece(self, text: str, token: Placed) -> Piece:
        spelled = self.spelling.later(token.id)
        own = text[token.start : token.end]
        return Piece(token.id, self.token(token.id), token.start, token.end, spelled, own)

    def _parsed(self, text: str) -> list[int]:
        ids: list[int] = []
        for segment in self._specials.split(text):
            if segment.token_id is None:
                position = Position.LATER if segment.start else Position.FIRST
                ids.extend(self.plain.ids(segment.text, position))
            else:
                ids.append(segment.token_id)
        return ids

    @cached_property
    def _specials(self) -> ControlTokens:
        return ControlTokens({i: self.added_tokens[i] for i in self.special_ids})

    def _framed(self, body: list[int]) -> list[int]:
        before, after = self.frame
        begun = bool(before) and body[: len(before)] == before
        return (body if begun else before + body) + after

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """What the post-processor writes before and after a text (BOS, [CLS], ...)."""
        encoding = self.engine.encode("a")
        ids, mask = encoding.ids, encoding.special_tokens_mask
        if 0 not in mask:  # "a" is nothing to this vocabulary
            return [], []
        start, end = mask.index(0), len(mask) - mask[::-1].index(0)
        return ids[:start], ids[end:]

    @cached_property
    def _pair_frame(self) -> _Frame:
        encoding = self.engine.encode("a", "a")
        ids, texts, kinds = encoding.ids, encoding.sequence_ids, encoding.type_ids
        first = [place for place, text in enumerate(texts) if text == 0]
        second = [place for place, text in enumerate(texts) if text == 1]
        start, middle, restart, end = first[0], first[-1] + 1, second[0], second[-1] + 1
        between = kinds[middle] if middle < restart else 0
        segments = (kinds[0], kinds[start], between, kinds[restart], kinds[-1])
        return _Frame(ids[:start], ids[middle:restart], ids[end:], segments)

    # Tokens to text

    @cached_property
    def spelling(self) -> decoding.Spelling:
        """What each token contributes to a text."""
        return decoding.Spelling(self.engine)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of a sequence of tokens.

        Bytes that are no UTF-8 become replacement characters; ids outside the vocabulary, which a
        model with a padded embedding can produce, nothing.
        """
        skipped = self.special_ids if skip_special_tokens else frozenset()
        return decoding.decode(self.spelling, [i for i in ids if i not in skipped])

    # Chat

    def apply_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> Conversation:
        """Messages as the model was trained to read them.

        What stands in the messages never becomes a special token.

        Args:
            messages: ``{"role": ..., "content": ...}`` and whatever else the template reads.
            tools: JSON schemas of functions that the model may call.
            documents: texts to answer from, for templates that take them.
            add_generation_prompt: end with the beginning of the assistant's turn.
            continue_final_message: leave the last message open, to be continued by the model.
            variables: further variables of the template.

        Raises:
            ValueError: if there is no template, or the template refuses the messages.
        """
        from limner.tokenizers.conversation import converse

        if self.chat_template is None:
            raise ValueError(
                "this model has no chat template, so it cannot take messages; "
                "set tokenizer.chat_template = ChatTemplate(source), or pass plain text"
            )
        if add_generation_prompt and continue_final_message:
            raise ValueError(
                "add_generation_prompt begins a new turn and continue_final_message leaves the "
                "last one open: pass add_generation_prompt=False"
            )
        inputs = {"messages": messages, "tools": tools, "documents": documents}
        prompt = add_generation_prompt
        return converse(self, inputs, variables, prompt=prompt, open_end=continue_final_message)

    # Files

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat template into a folder.

        `transformers.AutoTokenizer.from_pretrained` opens it, with equal ids.
        """
        folder.save(self, Path(path))


def _kind_of_bpe(engine: tokenizers.Tokenizer) -> str:
    decoder = engine.decoder.__getstate__() if engine.decoder is not None else b""
    if decoder == b'{"type":"Fuse"}' and not json.loads(engine.model.__getstate__())["merges"]:
        return "character"
    if b"ByteLevel" in decoder:
        return "byte-level BPE"
    if b"\xe2\x96\x81" in decoder or b"ByteFallback" in decoder:
        return "SentencePiece BPE"
    return "BPE"
