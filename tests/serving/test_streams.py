"""Many clients at once, and clients that go away."""

import json
import socket
import threading

import openai
import pytest

from limner.inference.sampler import NOTHING_LEFT

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]


def options(number):
    return {
        "model": "tiny",
        "prompt": " ".join(WORDS[: 1 + number % 8]) * (1 + number % 5),
        "max_tokens": 5 + 7 * (number % 6),
        "temperature": number % 3 / 2,
        "seed": number,
        "extra_body": {"ignore_eos": True},
    }


def streamed(client, number):
    chunks = client.completions.create(stream=True, **options(number))
    return "".join(chunk.choices[0].text for chunk in chunks)


def test_streams_side_by_side_equal_answers_one_at_a_time(client):
    one_at_a_time = [client.completions.create(**options(n)).choices[0].text for n in range(20)]
    together = [""] * 20

    def follow(number):
        together[number] = streamed(client, number)

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == one_at_a_time
    assert len(set(together)) > 10


def connection(server, body):
    """A request on a bare socket, as a client's that will be killed."""
    host, port = server.address.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    made.sendall(head.encode() + content)
    return made


@pytest.fixture
def endless():
    """A request whose answer is as long as the context."""
    return {"model": "tiny", "prompt": "the", "max_tokens": 500, "ignore_eos": True}


def test_a_client_killed_in_mid_stream_frees_its_row(server, idle, endless):
    thread = server.registry.served["tiny"].thread
    written = server.metrics.generated_tokens.labels("tiny")
    before = written._value.get()
    for _ in range(3):
        made = connection(server, endless | {"stream": True, "n": 4})
        assert b"data: {" in made.recv(1000) + made.recv(1000)
        assert thread.unfinished == 4
        made.close()
        idle()
    assert written._value.get() - before < 3 * 4 * 500  # it did not go on to the end


def test_so_does_one_that_waited_for_the_whole_answer(server, idle, endless):
    thread = server.registry.served["tiny"].thread
    made = connection(server, endless | {"n": 20})  # more than there are rows: some wait
    while not thread.running:
        pass
    made.close()
    idle()


def test_an_error_in_a_step_ends_the_answers_in_it_and_nothing_else(
    client, idle, break_step, caplog
):
    expected = streamed(client, 3)
    break_step()
    with pytest.raises(openai.InternalServerError, match="engine failed"):
        client.completions.create(**options(3))
    assert "out of memory" in caplog.text
    idle()
    assert streamed(client, 3) == expected


def test_one_answer_without_a_token_to_draw_leaves_its_neighbours_alone(client, alone):
    bans = {str(token): -100 for token in range(alone.config.vocabulary)}
    expected = client.completions.create(**options(5)).choices[0].text
    got = []
    other = threading.Thread(target=lambda: got.append(streamed(client, 5)))
    other.start()
    with pytest.raises(openai.BadRequestError, match=NOTHING_LEFT):
        client.completions.create(model="tiny", prompt="the", logit_bias=bans)
    other.join()
    assert got == [expected]
