import json
import threading
import time

import openai
import pytest

from limner.serving.keys import KeyStore
from limner.serving.response_store import ResponseStore
from tests.serving.conftest import ask

QUESTION = "the quick brown fox"
OPTIONS = {"temperature": 1, "max_output_tokens": 24, "extra_body": {"ignore_eos": True, "seed": 3}}
SAME = {"temperature": 1, "max_tokens": 24, "ignore_eos": True, "seed": 3}
USER = [{"role": "user", "content": QUESTION}]


def respond(client, question=QUESTION, **options):
    return client.responses.create(model="tiny", input=question, **{**OPTIONS, **options})


def test_a_response_is_the_chats_answer(client, alone):
    reply = respond(client)
    expected = alone.chat(USER, **SAME)
    assert reply.output_text == expected.text
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert reply.usage.input_tokens == expected.usage.prompt_tokens
    assert reply.usage.output_tokens == 24
    assert (reply.temperature, reply.model) == (1, "tiny")
    told = respond(client, instructions="be brief")
    assert told.output_text == alone.chat(
        [{"role": "system", "content": "be brief"}, *USER], **SAME
    ).text  # fmt: skip


def test_an_answer_that_ends_by_itself_is_completed(client, alone):
    whole = alone.chat(USER, **SAME).text
    reply = respond(client, extra_body={"ignore_eos": True, "seed": 3, "stop": whole[5:8]})
    assert (reply.status, reply.incomplete_details) == ("completed", None)
    assert reply.output_text == whole[: whole.index(whole[5:8])]


def test_items_of_every_kind_make_the_conversation(client, alone):
    first = respond(client)
    items = [
        {"role": "developer", "content": "x"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        *[item.to_dict() for item in first.output],
        {"role": "user", "content": "and?"},
    ]
    plain = [
        {"role": "system", "content": "x"}, *USER,
        {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "and?"},
    ]  # fmt: skip
    assert respond(client, items).output_text == alone.chat(plain, **SAME).text


def test_a_conversation_goes_on_from_what_was_stored(client, alone):
    first = respond(client, instructions="only for now")
    second = respond(client, "and?", previous_response_id=first.id)
    plain = [
        *USER, {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "and?"},
    ]  # fmt: skip
    assert second.output_text == alone.chat(plain, **SAME).text
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(second.id).output_text == second.output_text
    listed = client.responses.input_items.list(second.id).data
    assert [item.role for item in listed] == ["user", "assistant", "user"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    third = respond(client, "so?", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens


def test_what_is_not_to_be_stored_is_not(client):
    reply = respond(client, store=False)
    with pytest.raises(openai.NotFoundError, match="no response"):
        client.responses.retrieve(reply.id)
    with pytest.raises(openai.BadRequestError, match="no response") as caught:
        respond(client, previous_response_id=reply.id)
    assert caught.value.param == "previous_response_id"


def test_events_come_in_order_and_end_with_the_whole(client):
    whole = respond(client)
    events = list(respond(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    middle = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", *["response.output_text.delta"] * middle,
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.incomplete",
    ]  # fmt: skip
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text == events[-4].text
    assert events[0].response.status == "in_progress"
    assert events[0].response.output == []
    last = events[-1].response
    assert last.output_text == whole.output_text
    assert client.responses.retrieve(last.id).output_text == whole.output_text


def test_the_bytes_of_a_stream_name_their_events(send):
    body = {"model": "tiny", "input": QUESTION, "max_output_tokens": 3, "stream": True}
    reply = send("POST", "/v1/responses", body)
    blocks = reply.body.decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        name, data = block.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


def test_the_clients_own_stream_helper_understands_it(client, alone):
    whole = alone.chat(USER, **SAME).text
    extra = {"ignore_eos": True, "seed": 3, "stop": whole[5:8]}
    with client.responses.stream(model="tiny", input=QUESTION, extra_body=extra) as stream:
        for event in stream:
            assert event.type != "error"
        assert stream.get_final_response().output_text == whole[: whole.index(whole[5:8])]


def test_logprobs_are_told_if_asked_for(client, alone):
    include = ["message.output_text.logprobs"]
    reply = respond(client, include=include, top_logprobs=2)
    scores = reply.output[0].content[0].logprobs
    expected = alone.chat(USER, logprobs=2, **SAME).logprobs
    assert [score.logprob for score in scores] == pytest.approx(
        [score.logprob for score in expected], abs=1e-5
    )
    assert {len(score.top_logprobs) for score in scores} == {2}
    assert respond(client).output[0].content[0].logprobs == []


def test_too_long_a_conversation_is_cut_only_if_asked(client):
    items = [{"role": "user", "content": f"{number} " + "fox " * 30} for number in range(12)]
    with pytest.raises(openai.BadRequestError, match="512") as caught:
        respond(client, items)
    assert caught.value.code == "context_length_exceeded"
    reply = respond(client, items, truncation="auto")
    assert 300 < reply.usage.input_tokens < 512


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": []}, "input", "at least 1"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "not supported"),
        ({"input": [{"type": 5}]}, "input", "not supported"),
        ({"input": [5]}, "input", ""),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "send text"),
        ({"reasoning": {"effort": "high"}}, "reasoning", "not supported"),
        ({"background": True}, "background", "not supported"),
        ({"conversation": "c"}, "conversation", "not supported"),
        ({"include": ["file_search_call.results"]}, "include", "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs", "include="),
        ({"max_output_tokens": 0}, "max_output_tokens", "not 0"),
        ({"tools": [{"type": "web_search"}]}, "tools", "not supported"),
        ({"n": 2}, "n", "Unrecognized"),
        ({"previous_response_id": "resp_0"}, "previous_response_id", "no response"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(send, fields, param, words):
    reply = send("POST", "/v1/responses", {"model": "tiny", "input": "hi"} | fields)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert words in reply.error["message"]
    assert "\n" not in reply.error["message"]


TOOL = {
    "type": "function", "name": "weather", "strict": True,
    "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}},
        "required": ["city"], "additionalProperties": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_functions_are_called_and_their_results_read(client, choice):
    options = {"tools": [TOOL], "tool_choice": choice, "max_output_tokens": 100}
    options |= {"extra_body": {"seed": 1}, "parallel_tool_calls": False}
    reply = respond(client, **options)
    (call,) = reply.output
    assert (call.type, call.name, reply.status) == ("function_call", "weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Bern", "Rome")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = respond(client, [output], previous_response_id=reply.id, max_output_tokens=3)
    again = [{"role": "user", "content": QUESTION}, call.to_dict(), output]
    assert told.usage.input_tokens == respond(client, again).usage.input_tokens
    events = list(respond(client, stream=True, **options))
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call.arguments
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert (done.name, done.arguments) == ("weather", call.arguments)
    assert events[-1].response.output[0].arguments == call.arguments


def test_the_text_can_be_held_to_a_schema(client):
    form = {"type": "json_schema", "name": "x", "schema": TOOL["parameters"], "strict": True}
    reply = respond(client, text={"format": form}, max_output_tokens=90, extra_body={"seed": 2})
    assert json.loads(reply.output_text)["city"] in ("Bern", "Rome")
    assert reply.text.format.name == "x"


def test_an_answer_that_cannot_go_on_fails(send, break_step):
    break_step(3)
    body = {"model": "tiny", "input": QUESTION, "stream": True, "ignore_eos": True}
    last = send("POST", "/v1/responses", body).body.decode().split("\n\n")[-2]
    event = json.loads(last.partition("data: ")[2])
    assert (event["type"], event["response"]["status"]) == ("response.failed", "failed")
    assert "engine failed" in event["response"]["error"]["message"]


def test_responses_belong_to_the_key_that_made_them(start, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    mine, other = store.create("mine"), store.create("other")
    with start(store, require_keys=True) as server:
        body = {"model": "tiny", "input": "a", "max_output_tokens": 1}
        made = ask(server, "POST", "/v1/responses", body, Authorization=f"Bearer {mine}").json
        path = f"/v1/responses/{made['id']}"
        assert ask(server, "GET", path, Authorization=f"Bearer {other}").status == 404
        assert ask(server, "DELETE", path, Authorization=f"Bearer {other}").status == 404
        assert ask(server, "GET", path, Authorization=f"Bearer {mine}").json == made


def test_they_outlive_the_server_and_fade_after_a_month(start, tmp_path, monkeypatch):
    responses = ResponseStore(tmp_path / "responses.sqlite")
    body = {"model": "tiny", "input": "a", "max_output_tokens": 1}
    with start(responses=responses) as server:
        made = ask(server, "POST", "/v1/responses", body).json
    with start(responses=responses) as server:
        path = f"/v1/responses/{made['id']}"
        assert ask(server, "GET", path).json == made
        later = time.time() + 31 * 24 * 3600
        monkeypatch.setattr("limner.serving.response_store.time.time", lambda: later)
        ask(server, "POST", "/v1/responses", body)
        assert ask(server, "GET", path).status == 404


def test_a_client_that_goes_away_in_mid_stream_frees_its_row(server, client, idle):
    for event in respond(client, stream=True, max_output_tokens=400):
        if event.type == "response.output_text.delta":
            break
    threading.Thread(target=event.model_dump).start()
    idle()
