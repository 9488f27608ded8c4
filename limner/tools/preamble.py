"""Tools for models whose chat template has no place for them.

The tools are described in the system message, in the words that Hermes models are trained with
(Nous Research, Hermes 2 Pro), and calls and results are written into the messages in that form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from limner.tools.formats import HERMES

Message = dict[str, Any]

PREAMBLE = """You may call functions to answer. Their signatures are within <tools></tools> tags:
<tools>
{tools}
</tools>
To call a function, write a JSON object with its name and arguments within <tool_call></tool_call> \
tags:
<tool_call>
{{"name": <function-name>, "arguments": <arguments-object>}}
</tool_call>"""


def with_preamble(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """Messages of which a template needs to know only system, user and assistant."""
    plain: list[Message] = []
    last = None
    for message in messages:
        if message["role"] != "tool":
            plain.append(_with_calls(message))
        elif last == "tool":
            plain[-1]["content"] += f"\n{_result(message)}"
        else:
            plain.append({"role": "user", "content": _result(message)})
        last = message["role"]
    if not tools:
        return plain
    text = PREAMBLE.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if plain and plain[0]["role"] == "system":
        given = plain[0]["content"]
        return [plain[0] | {"content": f"{given}\n\n{text}" if given else text}, *plain[1:]]
    return [{"role": "system", "content": text}, *plain]


def _with_calls(message: Mapping[str, Any]) -> Message:
    """A message with its calls in its text."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    written = [HERMES.call(f["name"], _json(f["arguments"])) for f in functions]
    if not written:
        return dict(message)
    given = [message["content"]] if message.get("content") else []
    others = {name: field for name, field in message.items() if name != "tool_calls"}
    return others | {"content": "\n".join([*given, *written])}


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _result(message: Mapping[str, Any]) -> str:
    return f"<tool_response>\n{message['content']}\n</tool_response>"
