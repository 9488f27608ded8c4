import importlib
import inspect
import os
import subprocess
import sys

import pytest

from limner.commands import COMMANDS, main
from limner.commands.command_line import CommandSettings
from limner.commands.options import SamplingSettings
from limner.inference.sampling import Sampling

HEAVY = ["torch", "typer", "pydantic", "omegaconf", "rich", "tokenizers", "prompt_toolkit"]


def python(*words, **environment):
    """Run Python with these words in a process of its own; it must succeed."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_help_and_version_import_nothing_heavy(words):
    program = (
        f"import sys; from limner.commands import main; code = main({words!r});"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python("-c", program)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_only_the_chosen_command_is_imported():
    program = (
        "import sys; from limner.commands import main; main(['pull']);"
        "print([name for name in sys.modules if name.startswith('limner.commands.')],"
        "'torch' in sys.modules)"
    )
    done = python("-c", program)
    last = done.stdout.splitlines()[-1]
    assert "limner.commands.pull" in last
    assert "limner.commands.generate" not in last
    assert last.endswith("False")


def test_help_lists_every_command(limner):
    result = limner("--help")
    for name, summary in COMMANDS.items():
        assert f"{name} " in result.out
        assert summary in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself_and_each_of_its_settings(limner, name):
    model = importlib.import_module(f"limner.commands.{name.replace('-', '_')}").Command
    assert issubclass(model, CommandSettings)
    assert (inspect.getdoc(model) or "").splitlines()[0] == COMMANDS[name] + "."
    assert all(field.description for field in model.model_fields.values())
    result = limner(name, "--help")
    assert result.code == 0
    for setting, field in model.model_fields.items():
        assert "--" + (field.alias or setting).replace("_", "-") in result.out


def test_every_sampling_option_but_log_probabilities_is_a_setting():
    options = set(Sampling.__dataclass_fields__) - {"logprobs", "logprobs_of"}
    assert set(SamplingSettings.model_fields) == options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generte"], "unknown command 'generte'; did you mean 'generate'?"),
        (["generate"], "model: missing: it has no default"),
        (["generate", "m", "a", "b"], "'b' is one argument too many after MODEL and PROMPT"),
        (["generate", "m", "a", "--temprature", "1"], "No such option: --temprature"),
        (["generate", "m", "a", "temprature=1"], "unknown setting; did you mean 'temperature'?"),
        (["generate", "m", "a", "--temperature", "hot"], 'expected a number, not "hot"'),
        (["generate", "m", "a", "temperature=-1"], "temperature must be 0 or more, not -1"),
        (["generate", "m", "a", "--max-tokens"], "'--max-tokens' requires an argument"),
        (["generate", "m", "a", "--dtype", "float23"], "did you mean 'float32'?"),
        (["generate", "nothing.yaml"], "no settings file 'nothing.yaml'"),
        (["generate", "m", "a", "--file", "b"], "the prompt is given twice"),
    ],
)
def test_a_mistake_is_one_line(refused, words, message):
    assert message in refused(*words)


def test_flags_words_and_a_file_mean_the_same(limner, tiny, write):
    words = ["--temperature", "1", "--seed", "7", "--max-tokens", "20"]
    flags = limner("generate", tiny, "hello", *words).out
    assert len(flags) > 1
    keys = limner("generate", tiny, "hello", "temperature=1", "seed=7", "max_tokens=20").out
    text = f"model: {tiny}\nprompt: hello\ntemperature: 1\nseed: 8\nmax_tokens: 20\n"
    path = write("run.yaml", text.encode())
    assert keys == flags
    assert limner("generate", path, "seed=7").out == flags
    assert limner("generate", path).out != flags


def test_a_list_is_a_flag_given_several_times(limner, tiny):
    base = ["generate", tiny, "hello", "temperature=1", "seed=7", "max_tokens=30"]
    whole = limner(*base).out
    first, second = whole[4], whole[8]
    stopped = limner(*base, "--stop", second, "--stop", first).out
    assert stopped.strip("\n") == whole[: whole.index(first)].strip("\n")


def test_text_after_two_dashes_is_never_a_setting(limner, tiny, refused):
    assert "x: unknown setting" in refused("tokenize", tiny, "x=1")
    assert limner("tokenize", tiny, "--json", "--", "x=1").out.count('"id"') == 3
    assert limner("tokenize", tiny, "--json", "--", "--ids").code == 0


def test_bytes_in_an_argument_that_are_not_utf8_are_named(refused, tiny):
    assert "argument 2: not UTF-8 at byte 3 (0xe9)" in refused("tokenize", tiny, "caf\udce9")


def test_a_traceback_is_shown_if_asked_for(monkeypatch):
    with pytest.raises(ValueError, match="no model is called"):
        main(["info", "nosuch", "--traceback"])
    monkeypatch.setenv("LIMNER_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no model is called"):
        main(["info", "nosuch"])


def test_a_reader_that_goes_away_is_no_error(tiny, write):
    text = write("long.txt", b"one two three " * 20_000)
    command = f"'{sys.executable}' -m limner tokenize '{tiny}' --file '{text}' | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_terminal_without_unicode_gets_question_marks(tiny):
    done = python("-m", "limner", "tokenize", tiny, "é", "--json", PYTHONIOENCODING="ascii")
    assert "?" in done.stdout
