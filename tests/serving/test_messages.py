import anthropic
import pytest

from limner.serving.keys import KeyStore

QUESTION = "the quick brown fox"
EXTRA = {"ignore_eos": True, "seed": 3, "temperature": 1}
OPTIONS = {"max_tokens": 24, "extra_body": EXTRA}
SAME = {"temperature": 1, "max_tokens": 24, "ignore_eos": True, "seed": 3}
USER = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def claude(server):
    with anthropic.Anthropic(base_url=server.address, api_key="none", max_retries=0) as made:
        yield made


def say(claude, messages=USER, **options):
    return claude.messages.create(model="tiny", messages=messages, **{**OPTIONS, **options})


def read(reply):
    """The tokens of what it answers."""
    return reply.usage.input_tokens + reply.usage.cache_read_input_tokens


def test_a_message_is_the_chats_answer(claude, alone):
    reply = say(claude)
    expected = alone.chat(USER, **SAME)
    assert [block.text for block in reply.content] == [expected.text]
    assert (reply.role, reply.model, reply.stop_reason) == ("assistant", "tiny", "max_tokens")
    assert read(reply) == expected.usage.prompt_tokens
    assert reply.usage.output_tokens == 24


def test_system_and_blocks_are_the_chats(claude, alone):
    blocks = [{"type": "text", "text": "the quick "}, {"type": "text", "text": "brown fox"}]
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    plain = [{"role": "system", "content": "be brief"}, *USER]
    expected = alone.chat(plain, **SAME).text
    given = [{"role": "user", "content": blocks}]
    assert say(claude, given, system=system).content[0].text == expected
    assert say(claude, system="be brief").content[0].text == expected


def test_words_put_into_its_mouth_are_gone_on_with(claude, alone):
    opened = [*USER, {"role": "assistant", "content": "the lazy"}]
    tokens = alone.tokenizer.apply_chat(
        opened, add_generation_prompt=False, continue_final_message=True
    ).ids
    assert read(say(claude, opened)) == len(tokens)
    counted = claude.messages.count_tokens(model="tiny", messages=opened)
    assert counted.input_tokens == len(tokens)


def test_the_stop_sequence_that_ended_it_is_told(claude, alone):
    whole = alone.chat(USER, **SAME).text
    stops = ["never", whole[8:11], whole[5:8]]
    reply = say(claude, stop_sequences=stops)
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", whole[5:8])
    assert reply.content[0].text == whole[: whole.index(whole[5:8])]


def test_an_end_of_its_own_is_the_end_of_the_turn(claude, alone):
    reply = claude.messages.create(
        model="tiny", messages=USER, max_tokens=400, stop_sequences=["never to be seen"],
        extra_body={"seed": 3, "temperature": 1},
    )  # fmt: skip
    expected = alone.chat(USER, temperature=1, seed=3, max_tokens=400)
    assert expected.tokens[-1] in alone.tokenizer.stop_ids
    assert (reply.stop_reason, reply.stop_sequence) == ("end_turn", None)
    assert "".join(block.text for block in reply.content) == expected.text


def test_events_come_in_order(claude):
    whole = say(claude)
    events = list(say(claude, stream=True))
    kinds = [event.type for event in events]
    assert kinds == [
        "message_start", "content_block_start",
        *["content_block_delta"] * kinds.count("content_block_delta"),
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == whole.content[0].text
    assert read(events[0].message) == read(whole)
    assert events[-2].usage.output_tokens == 24
    assert events[-2].delta.stop_reason == "max_tokens"


def test_the_clients_own_stream_helper_understands_them(claude):
    with claude.messages.stream(
        model="tiny", messages=USER, max_tokens=24, extra_body=EXTRA
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == say(claude).content[0].text
    assert final.usage.output_tokens == 24


TOOL = {
    "name": "weather",
    "input_schema": {
        "type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}},
        "required": ["city"], "additionalProperties": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_tools_are_used_and_their_results_read(claude, choice):
    options = {
        "tools": [TOOL], "max_tokens": 100, "extra_body": {"seed": 1},
        "tool_choice": choice | {"disable_parallel_tool_use": True},
    }  # fmt: skip
    reply = say(claude, **options)
    (use,) = reply.content
    assert (use.type, use.name, reply.stop_reason) == ("tool_use", "weather", "tool_use")
    assert use.input["city"] in ("Bern", "Rome")
    with claude.messages.stream(model="tiny", messages=USER, **options) as stream:
        assert stream.get_final_message().content[0].input == use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
    told = [
        *USER, {"role": "assistant", "content": [use.to_dict()]},
        {"role": "user", "content": [result, {"type": "text", "text": "so?"}]},
    ]  # fmt: skip
    assert read(say(claude, told, tools=[TOOL], max_tokens=4)) > read(reply)


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (anthropic.NotFoundError, {"model": "claude"}),
        (anthropic.BadRequestError, {"max_tokens": 0}),
        (anthropic.BadRequestError, {"messages": []}),
        (anthropic.BadRequestError, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (
            anthropic.BadRequestError,
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        ),
        (anthropic.BadRequestError, {"max_tokens": 5000}),
    ],
)
def test_errors_are_in_anthropics_form(claude, error, fields):
    with pytest.raises(error) as caught:
        claude.messages.create(**{"model": "tiny", "messages": USER, "max_tokens": 2} | fields)
    body = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] in ("invalid_request_error", "not_found_error")
    assert body["error"]["message"]
    assert body["request_id"] == caught.value.request_id


def test_a_key_may_come_as_anthropics_clients_send_it(start, tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.create("me")
    with start(store, require_keys=True) as server:
        for given, status in ((key, 200), ("wrong", 401)):
            with anthropic.Anthropic(
                base_url=server.address, api_key=given, max_retries=0
            ) as client:
                if status == 200:
                    assert say(client).content
                    continue
                with pytest.raises(anthropic.AuthenticationError) as caught:
                    say(client)
                assert caught.value.body["error"]["type"] == "authentication_error"


def test_an_error_in_mid_stream_is_an_event(claude, break_step):
    break_step(3)
    with pytest.raises(anthropic.APIStatusError, match="engine failed"):
        list(say(claude, stream=True))
