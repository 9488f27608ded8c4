import openai
import pytest

QUESTION = [{"role": "user", "content": "hi"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def refuse(send):
    """Send a body that must be refused with 400; the error, and the server still answers."""

    def to_server(path, body, **headers):
        reply = send("POST", path, body, **headers)
        assert reply.status == 400, reply.body[:500]
        error = reply.error
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert "\n" not in error["message"]
        assert len(error["message"]) < 500
        assert send("POST", "/tokenize", {"prompt": "still there"}).status == 200
        return error

    return to_server


def chat(**fields):
    return {"model": "tiny", "messages": QUESTION, "max_tokens": 2} | fields


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError, match="tiny") as caught:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_too_long_says_both_numbers(client, alone):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[5] * 600)
    assert "600 tokens" in caught.value.message
    assert "512" in caught.value.message
    assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")
    with pytest.raises(openai.BadRequestError, match="512") as caught:
        client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=511)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2, not 3"),
        ({"temperature": "warm"}, "temperature", "not 'warm'"),
        ({"max_tokens": 0}, "max_tokens", "not 0"),
        ({"max_tokens": 10**30}, "max_tokens", "max_tokens"),
        ({"n": 129}, "n", "128"),
        ({"top_k": 2**70}, "top_k", "2147483648"),
        ({"seed": 2**63}, "seed", "seed"),
        ({"stop": ["x"] * 10_000}, "stop", "at most 4 items"),
        ({"stop": [""]}, "stop", "at least 1"),
        ({"stop": "x" * 2000}, "stop", "1024"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "99999"),
        ({"logit_bias": {"fox": 1}}, "logit_bias", "'fox'"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "101"),
        ({"top_logprobs": 3}, "top_logprobs", "logprobs=true"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages", "wizard"),
        ({"messages": "hello"}, "messages", "array"),
        ({"model": None}, "model", "string"),
        ({"stream_options": {"include_usage": True}}, None, "stream=true"),
        ({"stop_token_ids": [-1]}, None, "stop_tokens"),
        ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
        ({"chat_template_kwargs": {"messages": []}}, None, "may not set"),
    ],
)
def test_a_wrong_value_is_refused_by_name(refuse, fields, param, words):
    error = refuse(CHAT, chat(**fields))
    assert words in error["message"]
    assert param in (None, error["param"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("store", True),
    ],
)
def test_what_the_server_cannot_do_is_refused_by_name(refuse, field, value):
    error = refuse(CHAT, chat(**{field: value}))
    assert error["code"] == "unsupported_parameter"
    assert error["param"] == field
    assert f"{field} is not supported" in error["message"]


def test_so_are_images_and_suffixes_of_models_without_tokens_for_them(refuse):
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    error = refuse(CHAT, chat(messages=[{"role": "user", "content": image}]))
    assert error["param"] == "messages"
    error = refuse(TEXT, {"model": "tiny", "prompt": "a", "suffix": "z"})
    assert error["param"] == "suffix"


def test_fields_without_effect_and_neutral_values_are_taken(send):
    neutral = {
        "user": "u", "metadata": {"a": "b"}, "store": False, "response_format": {"type": "text"},
        "tools": None, "tool_choice": "none", "service_tier": "auto", "safety_identifier": "s",
    }  # fmt: skip
    assert send("POST", CHAT, chat(**neutral)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a":' * 50_000,
        b"[" * 100_000,
        b'{"model": "tiny", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "temperature": 1e999}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "seed": '
        + b"9" * 100_000
        + b"}",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "logit_bias": {"'
        + b"1" * 5000
        + b'": 1}}',
    ],
    ids=range(13),
)
def test_hostile_bodies_are_refused(refuse, body):
    refuse(CHAT, body)


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        [],
        [[]],
        [1, "a"],
        [["a"]],
        {"a": 1},
        [True],
        [-1],
        [10**40],
        [999_999],
        [1.5],
        [[1, []]],
    ],
)
def test_hostile_prompts_are_refused(refuse, prompt):
    assert refuse(TEXT, {"model": "tiny", "prompt": prompt})["param"] == "prompt"


def test_a_bias_that_bans_everything_is_the_clients_mistake(refuse, alone):
    bans = {str(token): -100 for token in range(alone.config.vocabulary)}
    assert "no token to draw" in refuse(CHAT, chat(logit_bias=bans))["message"]


def test_an_error_in_mid_stream_is_an_event(client, alone):
    bans = {str(token): -100 for token in range(alone.config.vocabulary)}
    stream = client.chat.completions.create(
        model="tiny", messages=QUESTION, logit_bias=bans, stream=True
    )
    with pytest.raises(openai.APIError, match="no token to draw"):
        list(stream)


def test_a_body_must_say_that_it_is_json(send):
    assert send("POST", CHAT, chat(), Content_Type="text/plain").status == 415


def test_unknown_paths_and_methods_are_errors_in_the_same_form(send):
    assert send("GET", "/v1/nothing").status == 404
    assert send("GET", "/v1/nothing").error["type"] == "invalid_request_error"
    reply = send("GET", CHAT)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
