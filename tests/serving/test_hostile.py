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
]  # fmt: skip

BODIES = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4)
VALID = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/tokenize": {},
    "/detokenize": {},
    "/v1/embeddings": {"input": "hi"},
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
    assert reply.status in (200, 400, 404)
    if reply.status != 200:
        assert reply.error["message"]
