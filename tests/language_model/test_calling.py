"""Calls of functions from Python; how each form is read and held to, the server's tests show."""

import json

import pytest

import limner
from limner.inference.sequence import Event
from limner.language_model.calling import CallReader, calling
from limner.tokenizers import ChatTemplate
from tests.docs.tiny_model import write_tiny_model
from tests.tools.test_formats import TEMPLATES

QUESTION = [{"role": "user", "content": "the weather in Bern"}]
PARAMETERS = {
    "type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}, "days": {"enum": [1, 7]}},
    "required": ["city", "days"], "additionalProperties": False,
}  # fmt: skip
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "parameters": EMPTY}},
]
MESSAGES = (
    "{% for m in messages %}{{ m.role + ': ' + m.content }}{% for call in m.tool_calls %}"
    "{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}"
)
FORMS = {name: template for template, name in TEMPLATES}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """The tiny model with a chat template that has calls written in one of the forms."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)

    def with_template(name):
        model = limner.load(path, context=2048)
        if name is not None:  # its own template knows no tools
            source = f"{MESSAGES}{{% if tools %}}{FORMS[name]}{{% endif %}}"
            model.tokenizer.chat_template = ChatTemplate(source)
        return model

    return with_template


@pytest.fixture(scope="module")
def hermes(load):
    return load("hermes")


@pytest.fixture(scope="module", params=["hermes", "mistral", None])
def model(request, load):
    return load(request.param)


def test_a_required_call_is_sound_and_can_be_answered(model):
    options = {"tools": TOOLS, "max_tokens": 600, "temperature": 1, "seed": 3}
    answer = model.chat(QUESTION, tool_choice="weather", **options)
    (call,) = answer.calls
    assert call.name == "weather"
    assert call.values["city"] in ("Bern", "Rome")
    assert answer.finish_reason == "tool_calls"
    assert answer.text == ""
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    told = [*QUESTION, answer.message, result]
    longer = model.chat(told, tools=TOOLS, max_tokens=2, temperature=0)
    assert longer.usage.prompt_tokens > answer.usage.prompt_tokens


def test_any_function_may_be_required(model):
    answer = model.chat(QUESTION, tools=TOOLS, tool_choice="required", max_tokens=600, seed=1)
    assert {call.name for call in answer.calls} <= {"weather", "now"}
    for call in answer.calls:
        assert isinstance(call.values, dict)


def test_without_a_choice_the_prompt_is_that_without_tools(model):
    bare, none = (
        model.chat(QUESTION, max_tokens=2, **more)
        for more in ({}, {"tools": TOOLS, "tool_choice": "none"})
    )
    assert none.usage.prompt_tokens == bare.usage.prompt_tokens


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        (TOOLS, "wether", "tool_choice is 'wether'.*weather, now"),
        (None, "required", "give tools too"),
    ],
)
def test_a_choice_that_is_none_is_refused(hermes, tools, choice, words):
    with pytest.raises(ValueError, match=words):
        hermes.chat(QUESTION, tools=tools, tool_choice=choice)


def test_arguments_that_are_no_object_are_refused(hermes):
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "[1"}}
    told = [*QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(ValueError, match="'now' whose arguments are no JSON object"):
        hermes.chat(told, tools=TOOLS)


def test_text_and_calls_are_told_apart_as_they_come(hermes):
    reader = CallReader(calling(hermes.tokenizer, TOOLS))
    written = {"name": "weather", "arguments": {"city": "Bern", "days": 1}}
    text = f"Wait.<tool_call>{json.dumps(written)}</tool_call>"
    pieces = [reader.take(Event(0, 5, character)) for character in text]
    reader.take(Event(0, finish_reason="stop"))
    assert "".join(pieces) == reader.text == "Wait."
    (call,) = reader.calls
    assert (call.name, call.values) == ("weather", {"city": "Bern", "days": 1})
