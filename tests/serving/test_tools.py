"""Calls of functions, over the wire, in each of the forms that models write them in."""

import json
from functools import partial
from typing import Any

import openai
import pydantic
import pytest

import limner
from limner.serving.keys import KeyStore
from limner.serving.response_store import ResponseStore
from limner.serving.server import Loading, Server, Serving
from limner.serving.tool_requests import Tool
from limner.serving.tooling import tooling
from limner.tokenizers import ChatTemplate
from limner.tools import formats
from tests.serving.conftest import ask, running
from tests.tools.test_formats import TEMPLATES

CHAT = "/v1/chat/completions"
QUESTION: Any = [{"role": "user", "content": "the weather in Bern"}]
NAMES = ["plain", *(name for _, name in TEMPLATES)]
MESSAGES = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for call in m.tool_calls %}{{ call.function | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}<|im_start|>assistant\n"
)


class Weather(pydantic.BaseModel, extra="forbid"):
    """The weather somewhere."""

    city: str = pydantic.Field(pattern="^[A-Z][a-z]{1,9}$")
    days: int = pydantic.Field(ge=1, le=14)


def function(name, parameters, **more):
    return {"type": "function", "function": {"name": name, "parameters": parameters} | more}


WEATHER = function("weather", Weather.model_json_schema(), description="The weather somewhere")
NOW = function("now", {"type": "object", "properties": {}, "additionalProperties": False})
TOOLS: Any = [WEATHER, NOW]


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    """The tiny model under the templates of every form, and its own that knows no tools."""

    def load(template):
        model = limner.load(tiny, context=2048)
        if template:
            model.tokenizer.chat_template = ChatTemplate(MESSAGES + template)
        return model

    templates = {"plain": None} | {name: template for template, name in TEMPLATES}
    folder = tmp_path_factory.mktemp("data")
    loading = Loading({name: partial(load, template) for name, template in templates.items()})
    keys, kept = KeyStore(folder / "keys.sqlite"), ResponseStore(folder / "responses.sqlite")
    with running(Server(loading, Serving(port=0), keys, kept)) as live:
        yield live


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def send(server):
    return lambda body: ask(server, "POST", CHAT, {"messages": QUESTION} | body)


def check(call):
    """That a call is one of a function that there is, with arguments that fit it."""
    assert call.type == "function"
    arguments = json.loads(call.function.arguments)
    if call.function.name == "weather":
        Weather.model_validate(arguments)
    else:
        assert (call.function.name, arguments) == ("now", {})


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_is_required_always_comes_and_always_fits(client, name):
    for seed in range(2):
        reply = client.chat.completions.create(
            model=name, messages=QUESTION, tools=TOOLS, tool_choice="required", seed=seed,
            parallel_tool_calls=False, max_tokens=600,
        )  # fmt: skip
        (choice,) = reply.choices
        (call,) = choice.message.tool_calls
        check(call)
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert len(call.id) == 9


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_tells_of_the_same_calls_name_first(client, name):
    options: Any = {
        "model": name, "messages": QUESTION, "tools": TOOLS, "tool_choice": "required",
        "max_tokens": 1000, "seed": 5,
    }  # fmt: skip
    whole = client.chat.completions.create(**options).choices[0]
    calls: list[Any] = []
    for part in client.chat.completions.create(stream=True, **options):
        (choice,) = part.choices
        assert not choice.delta.content
        for delta in choice.delta.tool_calls or ():
            if delta.id:
                assert delta.index == len(calls)
                assert (delta.type, delta.function.arguments) == ("function", "")
                calls.append([delta.function.name, []])
            else:
                calls[delta.index][1].append(delta.function.arguments)
    assert choice.finish_reason == whole.finish_reason
    told = [(called, "".join(pieces)) for called, pieces in calls]
    assert told == [(c.function.name, c.function.arguments) for c in whole.message.tool_calls]
    assert any(len(pieces) > 1 for _, pieces in calls) or all(c[0] == "now" for c in calls)


@pytest.mark.parametrize("name", ["plain", "llama"])
def test_a_named_function_is_the_one_that_is_called(client, name):
    reply = client.chat.completions.create(
        model=name, messages=QUESTION, tools=TOOLS, max_tokens=600, seed=1,
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )  # fmt: skip
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "weather"
    check(call)


def test_a_template_that_takes_single_calls_gets_no_more(tiny):
    tokenizer = limner.load(tiny).tokenizer
    tools = [Tool.model_validate(tool) for tool in TOOLS]
    assert tooling(tokenizer, tools, "auto", parallel=True).several
    tokenizer.chat_template = ChatTemplate(
        MESSAGES + "{% if tools %}This model only supports single tool-calls at once!{% endif %}"
    )
    assert not tooling(tokenizer, tools, "auto", parallel=True).several


def test_only_allowed_tools_are_called(client):
    allowed: Any = {
        "mode": "required",
        "tools": [{"type": "function", "function": {"name": "now"}}],
    }
    reply = client.chat.completions.create(
        model="plain", messages=QUESTION, tools=TOOLS, max_tokens=300, parallel_tool_calls=False,
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
    )  # fmt: skip
    assert [call.function.name for call in reply.choices[0].message.tool_calls] == ["now"]


def test_the_clients_own_parsing_of_calls_works(client):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    reply = client.chat.completions.parse(
        model="hermes", messages=QUESTION, tools=[tool], tool_choice="required", max_tokens=900,
        parallel_tool_calls=False, seed=3,
    )  # fmt: skip
    (call,) = reply.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_a_model_that_is_free_to_call_may_answer(client):
    options: Any = {"messages": QUESTION, "temperature": 1, "seed": 3, "max_tokens": 30}
    for tools in ({"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "auto"}):
        choice = client.chat.completions.create(model="hermes", **options, **tools).choices[0]
        assert choice.message.content
        assert choice.message.tool_calls is None
        assert choice.finish_reason in ("stop", "length")


def test_without_choice_the_functions_are_not_even_told_of(client):
    options: Any = {"messages": QUESTION, "seed": 3, "max_tokens": 5}
    for name in ("plain", "hermes"):
        bare = client.chat.completions.create(model=name, **options)
        none = client.chat.completions.create(
            model=name, tools=TOOLS, tool_choice="none", **options
        )
        told = client.chat.completions.create(model=name, tools=TOOLS, **options)
        assert none.choices[0].message.content == bare.choices[0].message.content
        assert none.usage.prompt_tokens == bare.usage.prompt_tokens < told.usage.prompt_tokens


def test_results_are_sent_back_and_read(client):
    call = {"id": "call_1", "type": "function"}
    called = call | {"function": {"name": "weather", "arguments": '{"city": "Bern", "days": 1}'}}
    messages: Any = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    for name in NAMES:
        reply = client.chat.completions.create(
            model=name, messages=messages, tools=TOOLS, max_tokens=3
        )
        assert reply.usage.completion_tokens


def test_what_came_can_be_sent_back(client):
    first = client.chat.completions.create(
        model="llama", messages=QUESTION, tools=TOOLS, tool_choice="required", max_tokens=900,
        seed=2, parallel_tool_calls=False,
    )  # fmt: skip
    message = first.choices[0].message
    result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12"}
    messages = [*QUESTION, message, result]
    assert client.chat.completions.create(model="llama", messages=messages, max_tokens=3).choices


def test_an_answer_in_a_form_or_a_call(client):
    class Said(pydantic.BaseModel):
        yes: bool

    for seed in range(3):
        reply = client.chat.completions.parse(
            model="hermes", messages=QUESTION, tools=[strict(WEATHER)], max_tokens=900, seed=seed,
            response_format=Said, parallel_tool_calls=False,
        )  # fmt: skip
        message = reply.choices[0].message
        assert isinstance(message.parsed, Said) or message.tool_calls


def strict(tool) -> Any:
    return {"type": "function", "function": tool["function"] | {"strict": True}}


REFUSED = [
    ({"tool_choice": "required"}, "tool_choice", "tools are not given"),
    ({"tools": [NOW, NOW]}, "tools", "two functions with the name 'now'"),
    ({"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "x"}}},
     "tool_choice", "names 'x', but the functions are: now"),
    ({"tools": [function("a b", {})]}, "tools", "pattern"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools", "function"),
    ({"tools": [function("f", {"properties": {"x": {"uniqueItems": True}}})],
      "tool_choice": "required"}, "tools", "'f', of which the schema cannot be followed: the"),
    ({"tools": [function("f", {"not": {}}, strict=True)]}, "tools", "the keyword not"),
    ({"tools": TOOLS, "guided_grammar": 'start: "a"'}, "tools", "beside a grammar"),
    ({"messages": [{"role": "assistant", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}]}]},
     "messages", "'f' whose arguments are no JSON object: '{'"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "words"), REFUSED)
def test_contradictions_are_refused_by_name(send, fields, param, words):
    reply = send({"model": "hermes", "max_tokens": 5} | fields)
    assert reply.status == 400
    assert (reply.error["param"], words in reply.error["message"]) == (param, True), reply.error


def test_functions_that_need_not_be_called_may_have_any_schema(send):
    body = {"model": "hermes", "max_tokens": 5, "tools": [function("f", {"not": {}})]}
    assert send(body).status == 200


def test_formats_that_are_tested_are_all_there_are():
    assert {name for _, name in TEMPLATES} == {found.name for _, found in formats.TELLING if found}


def test_every_token_of_a_streamed_call_has_its_score(client):
    stream = client.chat.completions.create(
        model="mistral", messages=QUESTION, tools=TOOLS, tool_choice="required", max_tokens=300,
        logprobs=True, stream=True, stream_options={"include_usage": True}, seed=4,
    )  # fmt: skip
    *parts, last = stream
    found = [part.choices[0].logprobs for part in parts]
    scores = [score for part in found if part for score in part.content]
    assert len(scores) == last.usage.completion_tokens
    assert scores[0].token == "[TOOL_CALLS]"[: len(scores[0].token)]
