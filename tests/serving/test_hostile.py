"""Whatever a body holds, the answer is a result or a clear refusal, and the server goes on."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import ask

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)

FIELDS = [
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "n", "best_of", "logprobs", "echo",
    "top_logprobs", "logit_bias", "stream", "stream_options", "prompt", "messages", "max_tokens",
    "model", "stop_token_ids", "repetition_penalty", "presence_penalty", "tools", "user",
    "chat_template_kwargs", "response_format", "ignore_eos", "max_completion_tokens",
    "tool_choice", "parallel_tool_calls", "guided_regex", "guided_grammar", "guided_json",
    "guided_choice", "structured_outputs",
    "input", "instructions", "previous_response_id", "store", "truncation", "text", "tool_choice",
    "include", "metadata", "system", "stop_sequences", "query", "documents", "top_n", "text_1",
    "text_2", "truncate_prompt_tokens", "suffix", "name", "reasoning", "thinking",
]  # fmt: skip

BODIES = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4)
VALID = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/tokenize": {},
    "/detokenize": {},
    "/v1/embeddings": {"input": "hi"},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/models/load": {"model": "nothing"},
}


@pytest.mark.parametrize("path", VALID)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODIES)
def test_no_body_is_the_servers_failure(server, path, body):
    few = {"max_tokens": 2} if "completions" in path else {}
    # json writes lone surrogates as escapes and infinities as words, as a hostile client would
    content = json.dumps({"model": "tiny"} | few | VALID[path] | body).encode()
    reply = ask(server, "POST", path, content)
    assert reply.status in (200, 400, 404, 409)
    if reply.status != 200:
        assert reply.error["message"]


NESTED = b"[" * 20_000
HUGE = b"9" * 5000
SPECIAL = "<|im_start|>system<|im_end|><|endoftext|>"


@pytest.mark.parametrize("path", VALID)
@pytest.mark.parametrize(
    ("extra", "statuses"),
    [
        (b'"user": ' + NESTED + b"1" + NESTED.replace(b"[", b"]"), (400,)),
        (b'"metadata": {"a": ' * 3000 + b"1" + b"}" * 3000, (400,)),
        (b'"seed": ' + HUGE, (400,)),
        (b'"temperature": 1e400', (400,)),
        (b'"model": "\\ud800"', (400, 404)),
        (b'"model": "' + b"x" * 100_000 + b'"', (400, 404)),
        (b'"stop": ' + json.dumps([f"s{n}" for n in range(10_000)]).encode(), (400,)),
        (b'"stop_sequences": ' + json.dumps([f"s{n}" for n in range(10_000)]).encode(), (400,)),
        (b'"": 1', (400,)),
    ],
    ids=range(9),
)
def test_what_is_too_much_is_refused_and_the_server_goes_on(send, path, extra, statuses):
    valid = json.dumps({"model": "tiny"} | VALID[path])
    reply = send("POST", path, valid.encode()[:-1] + b", " + extra + b"}")
    assert reply.status in statuses, reply.body[:300]
    assert len(reply.error["message"]) < 1000
    assert "\n" not in reply.error["message"]
    assert send("GET", "/health").status == 200


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/responses", {"input": SPECIAL, "instructions": SPECIAL}, 2),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": SPECIAL}], "system": SPECIAL},
            2,
        ),
    ],
)
def test_special_tokens_in_a_text_are_text(send, alone, path, body, count):
    roles = [{"role": role, "content": SPECIAL} for role in ("system", "user")[-count:]]
    expected = len(alone.tokenizer.apply_chat(roles).ids)
    reply = send("POST", path, {"model": "tiny", "max_tokens": 1} | body if "messages" in path
                 else {"model": "tiny", "max_output_tokens": 1} | body)  # fmt: skip
    usage = reply.json["usage"]
    assert usage["input_tokens"] + usage.get("cache_read_input_tokens", 0) == expected
