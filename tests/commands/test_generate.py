import re

import pytest

from limner import load
from tests.peft.adapters import write_random_adapter


def test_a_chat_model_answers_a_message_and_raw_continues_a_text(limner, tiny):
    chat = limner("generate", tiny, "the lazy dog", "--max-tokens", 8, "--stats")
    raw = limner("generate", tiny, "the lazy dog", "--max-tokens", 8, "--stats", "--raw")
    plain = len(limner("tokenize", tiny, "the lazy dog", "--ids").out.split())
    assert f"prompt: {plain} tokens" in raw.err
    assert f"prompt: {plain} tokens" not in chat.err


def test_without_a_temperature_the_answer_is_the_same_each_time(limner, tiny):
    words = ["generate", tiny, "the quick", "--raw", "--max-tokens", 20]
    assert limner(*words).out == limner(*words).out == limner(*words, "temperature=0").out


def test_the_prompt_comes_from_an_argument_a_file_or_standard_input(limner, tiny, write):
    options = ["--raw", "--max-tokens", 10]
    argument = limner("generate", tiny, "the quick", *options).out
    file = write("prompt.txt", b"the quick\n")
    assert limner("generate", tiny, "--file", file, *options).out == argument
    assert limner("generate", tiny, *options, stdin=b"the quick\r\n").out == argument


def test_what_is_cut_off_is_said(limner, tiny):
    result = limner("generate", tiny, "the quick", "--raw", "ignore_eos=true", "max_tokens=5")
    assert result.err == "(cut off after 5 tokens; --max-tokens sets how many)\n"


def test_an_answer_of_unstated_length_ends(limner, tiny, monkeypatch):
    monkeypatch.setattr("limner.commands.answering.LONGEST", 30)
    result = limner("generate", tiny, "the quick", "--raw", "--ignore-eos")
    # characters of several tokens can make the last piece of text come a few tokens later
    assert re.match(r"\(cut off after 3[0-5] tokens;", result.err)


def test_a_system_prompt_is_read_by_the_model(limner, tiny):
    def prompt_tokens(*words):
        return limner("generate", tiny, "hi", "--max-tokens", 1, "--stats", *words).err

    assert prompt_tokens("--system", "You are a fox.") != prompt_tokens()


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (["the quick " * 9000], b"", "tokens but the context is 8192"),
        (["hi", "--context", "5"], b"", "the engine's capacity is 5"),
        (["hi", "--context", "9999"], b"", "context must be from 2 to 8192"),
        (["hi", "max_tokens=9000"], b"", "the context is 8192: ask for at most"),
        ([], b"caf\xe9", "standard input: not UTF-8 at byte 3 (0xe9)"),
        (["--file", "nothing.txt"], b"", "nothing.txt: No such file"),
        (["hi", "--raw", "--system", "x"], b"", "--system needs a chat"),
        (["hi", "--device", "gpu"], b"", "unknown device 'gpu'"),
        (["hi", "stop_tokens=[100000]"], b"", "stop_tokens holds token 100000"),
    ],
)
def test_bad_input_is_one_line(refused, tiny, words, stdin, message):
    assert message in refused("generate", tiny, *words, stdin=stdin)


def test_a_damaged_model_is_one_line(refused, tiny, write):
    data = tiny.read_bytes()
    assert "the file ends at" in refused("generate", write("short.gguf", data[:200_000]), "hi")
    lie = data[:8] + (2**60).to_bytes(8, "little") + data[16:]
    assert "number of tensors is 1152921504606846976" in refused(
        "generate", write("lie.gguf", lie), "hi"
    )
    assert "no model is called" in refused("generate", "smolm2", "hi")
    assert "there is no model at" in refused("generate", "./nothing.gguf", "hi")


def test_control_characters_reach_a_file_but_no_terminal(monkeypatch):
    from limner.commands.terminal import harmless

    text = "a\x1b[2Jb\nc\td"
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert harmless(text) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert harmless(text) == "a\ufffd[2Jb\nc\td"


def test_an_answer_is_held_to_a_form(limner, tiny, write):
    schema = write("schema.json", b'{"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}')
    grammar = write("grammar.lark", b'start: "a" | "b"')
    for words, pattern in [
        (["--json-schema", schema], r"\[\s*([12]\s*(,\s*[12]\s*)?)?\]\n"),
        (["--grammar", grammar], "[ab]\n"),
        (["--regex", "[x-z]{2}"], "[x-z]{2}\n"),
        (["--choice", "yes", "--choice", "no"], "(yes|no)\n"),
    ]:
        result = limner("generate", tiny, "the quick", "--max-tokens", 200, *words)
        assert re.fullmatch(pattern, result.out), result.out


def test_a_form_that_cannot_be_followed_is_refused(refused, tiny, write):
    schema = write("schema.json", b'{"uniqueItems": true}')
    complaint = refused("generate", tiny, "a", "--json-schema", schema)
    assert (
        complaint == "error: schema cannot be followed: the keyword uniqueItems is not supported\n"
    )
    assert "no.json" in refused("generate", tiny, "a", "--json-schema", "no.json")


def test_a_search_prints_the_best_text_and_a_draft_changes_nothing(limner, tiny):
    words = ["generate", tiny, "the quick", "--raw", "max_tokens=12"]
    greedy = limner(*words).out
    assert limner(*words, "contrast=0").out == greedy
    assert limner(*words, "num_beams=1").out == greedy
    assert limner(*words, "draft=lookup").out == greedy
    assert limner(*words, "best_of=2", "temperature=1", "seed=3").out != greedy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["length_penalty=1"], "a search needs one of num_beams, contrast, best_of"),
        (["num_beams=2", "temperature=1"], "num_beams knows no option 'temperature'"),
        (["num_beams=2", "--stats"], "--stats is for answers that are drawn"),
        (["draft=heads"], "no heads that predict further"),
    ],
)
def test_impossible_searches_and_drafts_are_one_line(refused, tiny, words, message):
    assert message in refused("generate", tiny, "hi", *words)


def test_an_adapter_answers_and_a_folder_without_one_is_refused(limner, refused, tiny, tmp_path):
    adapter = write_random_adapter(load(tiny), tmp_path / "adapter")
    words = ("generate", tiny, "the quick", "--raw", "--max-tokens", 8)
    plain, adapted = limner(*words), limner(*words, "--adapter", adapter)
    assert adapted.code == 0
    assert adapted.out.strip() != plain.out.strip()
    found = limner(*words, "--adapter", adapter, "--num-beams", 2)
    assert found.out != limner(*words, "--num-beams", 2).out
    assert "no adapter at" in refused(*words, "--adapter", tmp_path / "nowhere")
