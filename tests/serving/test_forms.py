"""Answers held to a form, over the wire."""

import enum
import json
import re
from typing import Any

import pydantic
import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION: Any = [{"role": "user", "content": "the quick brown fox"}]


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Shape(pydantic.BaseModel, extra="forbid"):
    colour: Colour
    sides: int = pydantic.Field(ge=3, le=20)
    round: bool | None


SCHEMA = Shape.model_json_schema()


@pytest.mark.parametrize("seed", range(5))
def test_parsed_answers_are_objects_of_a_pydantic_model(client, seed):
    reply = client.chat.completions.parse(
        model="tiny", messages=QUESTION, response_format=Shape, seed=seed, max_tokens=400
    )
    assert isinstance(reply.choices[0].message.parsed, Shape)
    assert reply.choices[0].finish_reason == "stop"


def test_a_streamed_answer_is_parsed_too(client):
    with client.chat.completions.stream(
        model="tiny", messages=QUESTION, response_format=Shape, seed=1, max_tokens=400
    ) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Shape)


FORMS = [
    ({"guided_regex": r"[a-c]{3}-\d{2}"}, r"[a-c]{3}-\d{2}"),
    ({"guided_choice": ["yes", "no, never"]}, "yes|no, never"),
    ({"guided_grammar": 'start: "(" start ")" | "x"'}, r"\(*x\)*"),
    ({"structured_outputs": {"regex": "fox+"}}, "fox+"),
    ({"structured_outputs": {"choice": ["a", "b"]}}, "a|b"),
    ({"structured_outputs": {"json": {"enum": [1, 2]}}}, "1|2"),
    ({"guided_json": json.dumps({"const": "q"})}, '"q"'),
    ({"response_format": {"type": "json_schema", "json_schema": {
        "name": "n", "strict": True, "schema": {"enum": [None, True]}}}}, "null|true"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "pattern"), FORMS)
def test_every_form_holds_on_both_routes(send, fields, pattern):
    options = {"model": "tiny", "max_tokens": 300, "n": 3, "seed": 2} | fields
    chat = send("POST", CHAT, {"messages": QUESTION} | options).json["choices"]
    text = send("POST", TEXT, {"prompt": "the quick"} | options).json["choices"]
    texts = [choice["message"]["content"] for choice in chat] + [one["text"] for one in text]
    assert len(texts) == 6
    assert all(re.fullmatch(pattern, text) for text in texts), texts
    assert {choice["finish_reason"] for choice in [*chat, *text]} == {"stop"}


def test_an_answer_is_that_of_the_model_in_process(client, alone):
    options: Any = {"temperature": 1, "seed": 9, "max_tokens": 300}
    reply = client.chat.completions.create(
        model="tiny", messages=QUESTION, **options,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    )  # fmt: skip
    own = alone.chat(QUESTION, schema=Shape, **options)
    assert reply.choices[0].message.content == own.text
    Shape.model_validate_json(own.text)


def test_any_object_is_one_and_is_cut_off_honestly(send):
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 5, "seed": 1}
    reply = send("POST", CHAT, body | {"response_format": {"type": "json_object"}})
    assert reply.json["choices"][0]["message"]["content"].startswith("{")
    assert reply.json["choices"][0]["finish_reason"] == "length"


def schema(**fields):
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": fields}}


REFUSED = [
    ({"response_format": schema(uniqueItems=True)}, "response_format", "keyword uniqueItems"),
    ({"response_format": schema(items={"minLenght": 1})}, "response_format", "'minLength'"),
    ({"response_format": schema(format="zip")}, "response_format", "format 'zip'"),
    ({"response_format": {"type": "xml"}}, "response_format", "xml"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "equired"),
    ({"guided_regex": "("}, "guided_regex", "unclosed group"),
    ({"guided_grammar": "start: a"}, "guided_grammar", 'unknown name: "a"'),
    ({"guided_json": "{"}, "guided_json", "no JSON"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_regex", "exclude each other"),
    ({"guided_regex": "a", "ignore_eos": True}, "guided_regex", "ignore_eos"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exclude"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "words"), REFUSED)
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_what_cannot_be_followed_is_refused_by_name(send, path, fields, param, words):
    given = {"messages": QUESTION} if path == CHAT else {"prompt": "a"}
    reply = send("POST", path, {"model": "tiny", "max_tokens": 5} | given | fields)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert words in reply.error["message"]
    assert "\n" not in reply.error["message"]
