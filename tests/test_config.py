from pathlib import Path
from typing import Literal

import pytest
from pydantic import model_validator

from limner.config import Settings, decode_utf8, read_settings


class Optimizer(Settings):
    kind: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3


class Run(Settings):
    model: str
    steps: int = 10
    shuffle: bool = True
    seed: int | None = None
    folder: Path | None = None
    stop: tuple[str, ...] = ()
    weights: dict[str, float] | None = None
    either: int | list[int] = 0
    optimizer: Optimizer = Optimizer()
    stages: tuple[Optimizer, ...] = ()

    @model_validator(mode="after")
    def possible(self) -> "Run":
        if self.seed is not None and not self.shuffle:
            raise ValueError(f"seed={self.seed} does nothing without shuffle: leave it out")
        return self


@pytest.fixture
def yaml(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def fails(*arguments, **values):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        read_settings(Run, *arguments, **values)
    return str(error.value)


def test_file_words_and_arguments_fill_one_model_and_the_later_win(yaml):
    path = yaml("model: a\nsteps: 1\noptimizer: {learning_rate: 1e-4}\nseed: 3\n")
    settings = read_settings(Run, path, ["steps=2", "optimizer.kind=sgd", "seed=4"], seed=5)
    assert settings == Run(
        model="a", steps=2, seed=5, optimizer=Optimizer(kind="sgd", learning_rate=1e-4)
    )


def test_words_are_read_as_the_setting_asks():
    settings = read_settings(
        Run,
        None,
        [
            "model=no",
            "seed=null",
            "shuffle=false",
            "folder=a/b",
            "stop=[x, y]",
            "weights.code=.5",
            "either=[1, 2]",
            "stages=[{kind: sgd}]",
        ],
    )
    assert settings.model == "no"
    assert settings.seed is None
    assert settings.shuffle is False
    assert settings.folder == Path("a/b")
    assert settings.stop == ("x", "y")
    assert settings.weights == {"code": 0.5}
    assert settings.either == [1, 2]
    assert settings.stages == (Optimizer(kind="sgd"),)


@pytest.mark.parametrize("text", ["1e3", "007", "true", "null!", "a=b", "12:30", "$", " "])
def test_text_stays_as_typed(text):
    assert read_settings(Run, None, [f"model={text}"]).model == text


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2024-05-01", "2024-05-01"),
        ("12:30:45", "12:30:45"),
        ("0x", "0x"),
    ],
)
def test_yaml_words_that_older_yaml_turns_into_something_else_stay_text(yaml, scalar, value):
    assert read_settings(Run, yaml(f"model: {scalar}")).model == value


@pytest.mark.parametrize(
    ("scalar", "value"), [("1e-4", 1e-4), ("1E5", 1e5), ("-.5", -0.5), ("3", 3.0), ("6.", 6.0)]
)
def test_numbers_with_an_exponent_are_numbers(yaml, scalar, value):
    settings = read_settings(Run, yaml(f"model: a\nweights: {{x: {scalar}}}"))
    assert settings.weights == {"x": value}


@pytest.mark.parametrize("number", ["007", "1_000", "0o7", "1:30"])
def test_a_number_written_oddly_is_no_number(yaml, number):
    message = fails(yaml(f"model: a\nsteps: {number}"))
    assert message.endswith(f'steps: expected a whole number, not "{number}"')


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("modle=x", "modle: unknown setting; did you mean 'model'?"),
        ("optimizer.knd=x", "optimizer.knd: unknown setting; did you mean 'kind'?"),
        ("optimizer.zzz=x", "optimizer.zzz: unknown setting: known are kind, learning_rate"),
        ("steps.x=1", "steps.x: 'steps' is a single value, nothing can stand below it"),
        ("steps=many", 'steps: expected a whole number, not "many"'),
        ("steps=1.5", "steps: expected a whole number, not 1.5"),
        ("steps=true", "steps: expected a whole number, not true"),
        ("shuffle=no", 'shuffle: expected true or false, not "no"'),
        ("optimizer=3", "optimizer: expected a group of settings, not 3"),
        (
            "optimizer.kind=adan",
            "optimizer.kind: expected 'adam' or 'sgd', not \"adan\"; did you mean 'adam'?",
        ),
        ("either=x", 'either: expected a whole number or a list, not "x"'),
        ("weights.x=y", 'weights.x: expected a number, not "y"'),
        ("x", "'x' is no setting: write key=value"),
        ("steps=[1", "steps=[1:1:3: bad YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_wrong_word_is_one_line_that_names_key_value_and_fix(word, message):
    assert fails(None, ["model=a", word]) == message


def test_errors_in_a_file_name_the_line(yaml):
    path = yaml("model: a\noptimizer:\n  learnin_rate: 1\n")
    assert fails(path) == f"{path}:3: optimizer.learnin_rate: unknown setting; " + (
        "did you mean 'learning_rate'?"
    )
    path = yaml("model: a\nstages:\n- kind: sgd\n- kind: 3\n")
    assert fails(path).startswith(f"{path}:4: stages.1.kind: expected 'adam' or 'sgd', not 3")


def test_a_word_that_mends_a_file_is_not_blamed_on_it(yaml):
    path = yaml("model: a\nsteps: many\n")
    assert read_settings(Run, path, ["steps=3"]).steps == 3
    assert fails(path, ["steps=few"]) == 'steps: expected a whole number, not "few"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [a\n", ":2:1: bad YAML: expected ',' or ']', but got '<stream end>'"),
        ("model: a\nmodel: b\n", ":2:1: bad YAML: the key 'model' stands here twice"),
        ("- a\n", ": expected lines of 'key: value', not a list"),
        ("model: !!python/name:os.system\n", ":1:8: bad YAML: could not determine a constructor"),
    ],
)
def test_bad_yaml_gives_its_position(yaml, text, message):
    path = yaml(text)
    assert fails(path).startswith(f"{path}{message}")


def test_a_misspelt_key_is_named_rather_than_what_is_then_missing(yaml):
    assert "modle: unknown setting; did you mean 'model'?" in fails(yaml("modle: a"))
    assert fails() == "model: missing: it has no default"


def test_settings_refer_to_one_another_and_to_the_environment(yaml, monkeypatch):
    monkeypatch.setenv("WHERE", "here")
    path = yaml("model: m\nsteps: 7\nseed: ${steps}\nfolder: ${oc.env:WHERE}/${model}\n")
    settings = read_settings(Run, path)
    assert settings.seed == 7
    assert settings.folder == Path("here/m")
    assert "steeps" in fails(yaml("model: m\nseed: ${steeps}"))


def test_arguments_are_taken_as_they_are():
    assert read_settings(Run, model="${steps}").model == "${steps}"


def test_an_impossible_combination_says_so():
    assert fails(None, ["model=a", "shuffle=false", "seed=1"]) == (
        "seed=1 does nothing without shuffle: leave it out"
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        read_settings(Run, tmp_path / "nothing.yaml")


def test_bytes_that_are_not_utf8_are_named_with_their_place():
    with pytest.raises(ValueError, match=r"letter.txt: not UTF-8 at byte 3 \(0xe9\)"):
        decode_utf8(b"caf\xe9", "letter.txt")
    with pytest.raises(ValueError, match=r"byte 4 \(0xff\)"):
        decode_utf8(b"\xef\xbb\xbfa\xff", "with a byte-order mark")
