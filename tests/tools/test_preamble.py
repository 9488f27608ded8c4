import json

from limner.tools import parsers
from limner.tools.preamble import with_preamble
from tests.tools.test_parsers import parse

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "What time is it?"}


def called(*names, content=""):
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": {"zone": "UTC"}}}
        for name in names
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(content):
    return {"role": "tool", "tool_call_id": "now", "content": content}


def test_tools_are_told_of_in_the_system_message():
    (system, user) = with_preamble([USER], [TOOL])
    assert user == USER
    assert system["role"] == "system"
    assert json.dumps(TOOL) in system["content"]
    own = {"role": "system", "content": "Be brief."}
    (joined, _) = with_preamble([own, USER], [TOOL])
    assert joined == {"role": "system", "content": f"Be brief.\n\n{system['content']}"}


def test_without_tools_messages_are_as_they_were():
    assert with_preamble([USER], []) == [USER]


def test_calls_stand_in_the_text_as_the_parser_reads_them():
    (message,) = with_preamble([called("now", "later", content="Well.")], [])
    assert set(message) == {"role", "content"}
    text, calls = parse(parsers.hermes, message["content"])
    assert text == "Well."
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [
        ("now", {"zone": "UTC"}), ("later", {"zone": "UTC"}),
    ]  # fmt: skip


def test_results_are_the_users_and_those_of_one_turn_a_single_message():
    given = [USER, called("now", "later"), result("12"), result("13"), USER]
    told = with_preamble(given, [])
    assert [message["role"] for message in told] == ["user", "assistant", "user", "user"]
    assert told[2]["content"].count("<tool_response>") == 2
    assert "12" in told[2]["content"]
    assert "13" in told[2]["content"]
    assert given[2] == result("12")
