import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.tools import parsers
from limner.tools.parsers import CallParser
from limner.tools.source import CallPiece, TextPiece

FUNCTIONS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
    "now": {"type": "object", "properties": {}},
}


def parse(parser, *pieces):
    """The text and the calls of an answer that comes in these pieces."""
    reading = CallParser(parser, FUNCTIONS)
    found = [piece for text in pieces for piece in reading.push(text)] + reading.finish()
    text, calls = "", list[tuple[str, str]]()
    for piece in found:
        if isinstance(piece, TextPiece):
            text += piece.text
            continue
        if piece.name is not None:
            assert piece.call == len(calls)
            calls.append((piece.name, ""))
        assert piece.call == len(calls) - 1
        calls[-1] = calls[-1][0], calls[-1][1] + piece.arguments
    return text, calls


def weather(**arguments):
    return "weather", arguments


ANSWERS = [
    (
        parsers.hermes,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>',
        "", [weather(city="Bern")],
    ),
    (
        parsers.hermes,
        'Let me see.\n\n<tool_call>{"arguments": {"city": "a}\\"</tool_call>"}, "name": "weather"}'
        '</tool_call>\n<tool_call>\n{"name":"now"}\n</tool_call>\n',
        "Let me see.", [weather(city='a}"</tool_call>'), ("now", {})],
    ),
    (parsers.hermes, "Just <b>text</b>, and a < b.\n", "Just <b>text</b>, and a < b.\n", []),
    (parsers.hermes, "<tool_call>no</tool_call>!", "<tool_call>no</tool_call>!", []),
    (
        parsers.hermes,  # the closing mark forgotten
        '<tool_call>{"name": "now", "arguments": {}}<tool_call>{"name": "now", "arguments": {}}',
        "", [("now", {}), ("now", {})],
    ),
    (
        parsers.llama,
        '{"name": "weather", "parameters": {"city": "Bern", "days": 2}}',
        "", [weather(city="Bern", days=2)],
    ),
    (
        parsers.llama,
        '<|python_tag|>{"name": "now", "parameters": {}}; {"name": "weather", "parameters": {}}',
        "", [("now", {}), ("weather", {})],
    ),
    (parsers.llama, '{"name": "Bern", "size": 3}', '{"name": "Bern", "size": 3}', []),
    (parsers.llama, '{"name": "now", "parameters": {}} Done.', " Done.", [("now", {})]),
    (parsers.llama, "<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
    (parsers.llama, "The answer is {}.", "The answer is {}.", []),
    (
        parsers.mistral,
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Zürich [1]"}}, '
        '{"name": "now", "arguments": {}}]',
        "", [weather(city="Zürich [1]"), ("now", {})],
    ),
    (
        parsers.mistral,
        'Well. [TOOL_CALLS]weather[ARGS]{"city": "x"}[TOOL_CALLS]now[CALL_ID]a1[ARGS]{}',
        "Well.", [weather(city="x"), ("now", {})],
    ),
    (parsers.mistral, "[TOOL_CALLS] [] or [1]", "[TOOL_CALLS] [] or [1]", []),
    (
        parsers.qwen_coder,
        "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n"
        "<parameter=days>\n12\n</parameter>\n</function>\n</tool_call>",
        "I look.", [weather(city="12", days=12)],
    ),
    (
        parsers.qwen_coder,
        "<function=weather><parameter=city>\na\nb <i>\n</parameter></function>"
        "<tool_call><function=now></function></tool_call>",
        "", [weather(city="a\nb <i>"), ("now", {})],
    ),
    (
        parsers.qwen_coder,
        '<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>',
        "", [("now", {"zone": "UTC"})],
    ),
    (
        parsers.pythonic,
        "[weather(city='B\\'ern, (CH)', days=[1, {'a': None}]), now(), "
        'weather(**{"city": "x", "days": 1}), weather(city="a", wet=true, dry=False)]',
        "", [
            weather(city="B'ern, (CH)", days=[1, {"a": None}]), ("now", {}),
            weather(city="x", days=1), weather(city="a", wet=True, dry=False),
        ],
    ),
    (parsers.pythonic, "[1] says so (here)", "[1] says so (here)", []),
    (
        parsers.pythonic,
        '<|tool_call_start|>[{"name": "weather", "arguments": {"city": "x"}}, now()]'
        "<|tool_call_end|>!",
        "!",
        [weather(city="x"), ("now", {})],
    ),
    (
        parsers.pythonic,
        "Well <|tool_call_start|>[now()]<|tool_call_end|>",
        "Well", [("now", {})],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("parser", "answer", "text", "calls"), ANSWERS)
def test_text_and_calls_are_told_apart(parser, answer, text, calls):
    found, written = parse(parser, answer)
    assert found == text
    assert [(name, json.loads(arguments)) for name, arguments in written] == calls


PARSERS = [
    parsers.hermes, parsers.llama, parsers.mistral, parsers.qwen_coder, parsers.pythonic,
]  # fmt: skip
FRAGMENTS = [
    *(answer for _, answer, _, _ in ANSWERS), "<tool_call>", "</tool_call>", "{", "}", '"name": ',
    '"now"', '"arguments": ', "[TOOL_CALLS]", "[", "]", "[ARGS]", "weather", "(", ")", "city=", "'",
    "\\", '"', " ", "\n", ";", ",", ":", "<function=", ">", "<parameter=days>", "</parameter>",
    "</function>", "<|python_tag|>", "<|tool_call_start|>", "*", "e", "<", "1", "é", "true",
]  # fmt: skip
answers = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | st.text(max_size=20)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PARSERS), answers, st.data())
def test_however_an_answer_is_cut_it_reads_the_same(parser, answer, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=8)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole = parse(parser, answer)
    assert parse(parser, *pieces) == whole
    assert parse(parser, *answer) == whole
    assert whole[1] or whole[0] == answer


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PARSERS), st.text(alphabet="ab c.,\n!?é\t-1", max_size=60))
def test_an_answer_without_calls_is_its_own_text(parser, answer):
    assert parse(parser, answer) == (answer, [])


def test_arguments_pass_before_the_call_has_ended():
    reading = CallParser(parsers.hermes, FUNCTIONS)
    assert reading.push('<tool_call>{"name": "weath') == []
    assert reading.push('er", "argume') == [CallPiece(0, "weather")]
    assert reading.push('nts": {"city": "Be') == [CallPiece(0, arguments='{"city": "Be')]


def test_an_answer_that_is_cut_off_keeps_what_there_is():
    assert parse(parsers.hermes, '<tool_call>{"name": "now", "arguments": {"a": ') == (
        "", [("now", '{"a": ')],
    )  # fmt: skip
    assert parse(parsers.hermes, 'Hi <tool_call>{"name": "no') == ('Hi <tool_call>{"name": "no', [])
