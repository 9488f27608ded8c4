"""Messages to tokens, with no way for what stands in a message to become a special token.

The template writes control tokens ("<|im_end|>") and the messages' contents into one text. Which of
the control tokens in that text the template wrote is found by *shadows*: the template is rendered
again with the first and last characters of all control tokens, wherever the messages have them,
replaced by characters of private use. What is still a control token then is the template's own.
Where the template looks at contents (``'</think>' in content``), shadows would change what it
writes; that is seen by the two texts being unlike, and narrower shadows are cast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from limner.tokenizers.chat import (
    GENERATION_END,
    GENERATION_START,
    ChatTemplate,
    plain_data,
    with_reasoning,
)
from limner.tokenizers.encoding import Placed, PlainEncoder, Position
from limner.tokenizers.partition import ControlTokens, Segment, any_of

if TYPE_CHECKING:
    from limner.tokenizers.tokenizer import Tokenizer

_PRIVATE = range(0x100000, 0x10FFFE)


def converse(
    tokenizer: Tokenizer,
    inputs: Mapping[str, Any],
    variables: Mapping[str, Any],
    *,
    prompt: bool,
    open_end: bool,
) -> Conversation:
    """Apply a tokenizer's chat template; see `Tokenizer.apply_chat` for the arguments."""
    assert tokenizer.chat_template is not None
    given = plain_data({**inputs, "variables": dict(variables)})
    for message in given["messages"]:
        if not isinstance(message, dict):
            raise ValueError(
                f"a message is a dictionary with a role and a content, not {message!r}"
            )
    given["messages"] = [with_reasoning(message) for message in given["messages"]]
    return Conversation(tokenizer, tokenizer.chat_template, given, prompt, open_end)


class Conversation:
    """A conversation as text and as tokens.

    Attributes:
        text: what the template wrote.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        given: dict[str, Any],
        prompt: bool,
        open_end: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._given = given
        self._prompt = prompt
        self._open_end = open_end
        self.text = self._render(given)

    def __repr__(self) -> str:
        return f"Conversation({self.text!r})"

    @cached_property
    def ids(self) -> list[int]:
        """The tokens, (T,). Nothing is added to what the template wrote, so BOS is not doubled."""
        ids: list[int] = []
        for segment in self._segments:
            if segment.token_id is None:
                ids.extend(self._encoder.ids(segment.text, _position(segment)))
            else:
                ids.append(segment.token_id)
        return ids

    @cached_property
    def assistant_mask(self) -> list[bool]:
        """Which tokens the assistant wrote, (T,), with the token that ends its turn.

        Raises:
            ValueError: if the template does not say it with `{% generation %}`, and it cannot be
                seen either, because earlier turns are written otherwise once later ones follow.
        """
        spans = self._marked_spans() if self._is_marked else list(self._grown_spans())
        mask = [
            any(
                start < max(token.end, token.start + 1) and token.start < end
                for start, end in spans
            )
            for token in self._placed
        ]
        assert len(mask) == len(self.ids)
        return mask

    # Text

    def _render(self, given: Mapping[str, Any], **changes: Any) -> str:
        variables = {
            **self._tokenizer.roles,
            **given["variables"],
            **{name: given[name] for name in ("messages", "tools", "documents")},
            "add_generation_prompt": self._prompt,
            **changes,
        }
        if not self._open_end:
            return self._template.render(variables)
        return self._render_open(variables)

    def _render_open(self, variables: dict[str, Any]) -> str:
        """Up to the end of the last message's content."""
        mark = _unused(variables, 1)[0]
        variables["messages"] = _with_end_marked(variables["messages"], mark + " ")
        text, found, after = self._template.render(variables).rpartition(mark)
        if not found:
            raise ValueError(
                "the chat template does not write the last message's content, so that cannot be "
                "continued"
            )
        # A template that trims contents would have trimmed the end of this one.
        return text if after.startswith(" ") else text.rstrip()

    # Tokens

    @cached_property
    def _controls(self) -> ControlTokens:
        """Special tokens, and the added tokens that the template writes ("<tool_call>")."""
        source = self._template.chosen(tools=bool(self._given["tools"]))
        return ControlTokens(
            {
                token_id: token
                for token_id, token in self._tokenizer.added_tokens.items()
                if token.special or (token.content in source and not _is_space(token.content))
            }
        )

    @cached_property
    def _encoder(self) -> PlainEncoder:
        return self._tokenizer.plain.forbidding(self._controls.ids)

    @cached_property
    def _segments(self) -> list[Segment]:
        return list(self._controls.split(self._shadowed_text(), self.text))

    @cached_property
    def _placed(self) -> list[Placed]:
        placed: list[Placed] = []
        for segment in self._segments:
            if segment.token_id is not None:
                placed.append(Placed(segment.token_id, segment.start, segment.end))
                continue
            for token in self._encoder.placed(segment.text, _position(segment)):
                start, end = token.start + segment.start, token.end + segment.start
                placed.append(Placed(token.id, start, end))
        return placed

    def _shadowed_text(self) -> str:
        """The text, with control tokens from the messages made unlike any."""
        controls = [content for content in self._controls.contents if content]
        edges = sorted({text[0] for text in controls} | {text[-1] for text in controls})
        if not _mentions(self._given, edges):
            return self.text
        private = _unused([self._given, self.text], len(edges))
        back = str.maketrans(dict(zip(private, edges, strict=True)))
        for shadowed in self._shadows(controls, dict(zip(edges, private, strict=True))):
            text = self._try(shadowed)
            if text is not None and text.translate(back) == self.text:
                return text
        found = sorted({c for c in controls for text in _strings(self._given) if c in text})
        raise ValueError(
            "the messages hold control tokens that the chat template acts on, so that it cannot be "
            f"told which are the template's own: {', '.join(found)}. Remove them"
        )

    def _shadows(self, controls: list[str], private: dict[str, str]) -> Iterator[Any]:
        """The messages with shadows on them: broad ones first, for they are the safest."""
        shadows = str.maketrans(private)
        whole = _within(controls, shadows)
        yield _mapped(self._given, lambda text: text.translate(shadows), whole)
        yield _mapped(self._given, whole, whole)
        added = self._tokenizer.added_tokens.values()
        special = _within([token.content for token in added if token.special], shadows)
        yield _mapped(self._given, special, special)

    def _try(self, shadowed: Any) -> str | None:
        try:
            return self._render(shadowed)
        except ValueError:  # the template refuses what the shadows fall on
            return None

    # The assistant's part

    @property
    def _is_marked(self) -> bool:
        return self._template.marks_generation(tools=bool(self._given["tools"]))

    def _marked_spans(self) -> list[tuple[int, int]]:
        """What stands in `{% generation %}`, as (start, end) in the text."""
        start, end = _unused([self._given, self.text], 2)
        marked = self._render(self._given, **{GENERATION_START: start, GENERATION_END: end})
        spans, place, opened = [], 0, 0
        for character in marked:
            if character == start:
                opened = place
            elif character == end:
                spans.append((opened, place))
            else:
                place += 1
        if self._open_end and marked.rfind(start) > marked.rfind(end):
            spans.append((opened, place))
        return spans

    def _grown_spans(self) -> Iterator[tuple[int, int]]:
        """What each assistant message adds to the text, as (start, end)."""
        messages = self._given["messages"]
        for place, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            start = len(self._prefix(messages[:place], prompt=True))
            last = self._open_end and place == len(messages) - 1
            whole = self.text if last else self._prefix(messages[: place + 1], prompt=False)
            yield start, self._end_of_turn(start, len(whole))

    def _prefix(self, messages: list[Any], *, prompt: bool) -> str:
        given = self._given | {"messages": messages}
        closed = Conversation(self._tokenizer, self._template, given, prompt, open_end=False)
        if not self.text.startswith(closed.text):
            raise ValueError(
                "the chat template writes earlier turns otherwise once later ones follow, so what "
                "the assistant wrote cannot be told: mark it in the template with "
                "{% generation %} ... {% endgeneration %}"
            )
        return closed.text

    def _end_of_turn(self, start: int, end: int) -> int:
        """Without the white space that a template writes after the token that ends a turn."""
        trimmed = start + len(self.text[start:end].rstrip())
        ends_with_control = any(
            segment.token_id is not None and start < segment.end == trimmed
            for segment in self._segments
        )
        return trimmed if ends_with_control else end


def _overlap(token: Placed, start: int, end: int) -> bool:
    return start < max(token.end, token.start + 1) and token.start < end


def _position(segment: Segment) -> Position:
    return Position.LATER if segment.start else Position.FIRST


def _unused(given: Any, count: int) -> list[str]:
    """Characters of private use that no string in some data has."""
    used = {character for text in _strings(given) for character in text}
    free = (chr(code) for code in _PRIVATE if chr(code) not in used)
    return [next(free) for _ in range(count)]


def _with_end_marked(messages: list[Any], mark: str) -> list[Any]:
    if not messages:
        raise ValueError("continue_final_message was given, but there are no messages")
    content = messages[-1].get("content")
    if isinstance(content, str):
        return [*messages[:-1], messages[-1] | {"content": content + mark}]
    texts = [place for place, part in enumerate(content or []) if "text" in part]
    if not texts:
        raise ValueError("continue_final_message was given, but the last message has no text")
    parts = list(content)
    parts[texts[-1]] = parts[texts[-1]] | {"text": parts[texts[-1]]["text"] + mark}
    return [*messages[:-1], messages[-1] | {"content": parts}]


def _strings(value: Any) -> Iterator[str]:
    """All strings in plain data, keys of dictionaries among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _mentions(given: Any, characters: list[str]) -> bool:
    return any(character in text for text in _strings(given) for character in characters)


def _mapped(value: Any, change: Callable[[str], str], change_key: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        items = value.items()
        return {change_key(key): _mapped(item, change, change_key) for key, item in items}
    if isinstance(value, list):
        return [_mapped(item, change, change_key) for item in value]
    return value


def _is_space(text: str) -> bool:
    return not text.strip(" \t\r\n\u2581")


def _within(contents: list[str], shadows: Mapping[int, Any]) -> Callable[[str], str]:
    """Shadows only where one of `contents` stands whole."""
    pattern = any_of(contents)
    return lambda text: pattern.sub(lambda match: match[0].translate(shadows), text)
