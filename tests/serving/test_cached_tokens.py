"""What earlier texts had computed of a prompt, as each API counts it."""

from typing import Any

import anthropic
import pytest

from limner.nn.paged import PAGE_SIZE

#: No other test begins so; two pages and a half of the cache.
LONG = "over the lazy fox " * 30


def prompt(mark, pages=3):
    """Token ids that begin like no other text, some of the last page among them."""
    return [mark % 250 + 5, mark // 250 + 5, *[7 + mark % 50] * (pages * PAGE_SIZE)]


@pytest.fixture
def complete(client):
    def ask(mark, **options):
        given = {"model": "tiny", "prompt": prompt(mark), "max_tokens": 3, "temperature": 0}
        return client.completions.create(**given | options)

    return ask


def cached(reply):
    return reply.usage.prompt_tokens_details.cached_tokens


def test_a_prompt_asked_twice_is_found_page_by_page(complete):
    first, second = complete(1), complete(1)
    assert (cached(first), cached(second)) == (0, 3 * PAGE_SIZE)
    assert second.usage.prompt_tokens == first.usage.prompt_tokens == 3 * PAGE_SIZE + 2
    assert second.choices[0].text == first.choices[0].text


def test_a_stream_counts_the_same(complete):
    complete(2)
    *_, last = complete(2, stream=True, stream_options={"include_usage": True})
    assert cached(last) == 3 * PAGE_SIZE


def test_several_answers_count_a_prompt_once(complete):
    assert cached(complete(3, n=3)) == 0
    assert cached(complete(3, n=3)) == 3 * PAGE_SIZE
    both = complete(3, prompt=[prompt(3), prompt(4), prompt(3)], n=2)
    assert cached(both) == 2 * 3 * PAGE_SIZE


def test_what_is_scored_and_not_continued_is_computed_anew(complete):
    complete(5)
    assert cached(complete(5, echo=True, logprobs=0, max_tokens=0)) == 0


def test_chats_and_responses(client):
    messages = [{"role": "user", "content": f"chats: {LONG}"}]
    chats = [
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=3)
        for _ in range(2)
    ]
    pages = (chats[0].usage.prompt_tokens - 1) // PAGE_SIZE
    assert [cached(chat) for chat in chats] == [0, pages * PAGE_SIZE]
    made = client.responses.create(model="tiny", input=messages, max_output_tokens=3, store=False)
    assert made.usage.input_tokens_details.cached_tokens == pages * PAGE_SIZE


def test_messages_count_the_cache_beside_the_input(server):
    asked: Any = {"model": "tiny", "max_tokens": 3}
    asked["messages"] = [{"role": "user", "content": f"messages: {LONG}"}]
    with anthropic.Anthropic(base_url=server.address, api_key="none", max_retries=0) as client:
        first = client.messages.create(**asked)
        second = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    whole = first.usage.input_tokens
    found = (whole - 1) // PAGE_SIZE * PAGE_SIZE
    assert first.usage.cache_read_input_tokens == 0
    for later in (second, streamed):
        assert later.usage.cache_read_input_tokens == found
        assert later.usage.input_tokens == whole - found
