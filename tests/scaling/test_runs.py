import pytest

from limner.scaling.runs import Run, read_runs

ROWS = [(1e6, 2e7, 4.5), (2e6, 2e7, 4.25)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "parameters,tokens,loss,who\n1e6,2e7,4.5,me\n2000000,2e7,4.25,me\n"),
        ("a.csv", "N, D, L\n1e6, 2e7, 4.5\n2e6, 2e7, 4.25\n"),
        ("a.jsonl", '{"N": 1e6, "D": 2e7, "L": 4.5}\n\n{"N": 2e6, "D": 2e7, "L": 4.25}\n'),
        ("runs.jsonl", '{"name": "x", "parameters": 1e6, "tokens": 2e7, "loss": 4.5}\n'
         '{"parameters": 2e6, "tokens": 2e7, "loss": 4.25}\n'),
    ],
)  # fmt: skip
def test_tables_of_runs(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    runs = read_runs(tmp_path / name)
    assert [(run.parameters, run.tokens, run.loss) for run in runs] == ROWS
    assert runs[0].computation == 1.2e14
    if name == "runs.jsonl":
        assert read_runs(tmp_path)[0] == Run(1e6, 2e7, 4.5, "x")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "N,D,L\n1e6,2e7,nan\n", r"a\.csv:2: loss is nan, and must be a positive number"),
        ("a.csv", "N,D,L\n1e6,2e7,4\n1e6,,4\n", r"a\.csv:3: tokens is , and must"),
        ("a.csv", "N,D,L\n1e6,2e7\n", r"a\.csv:2: loss is None"),
        ("a.jsonl", '{"N": -1, "D": 1, "L": 1}', r"a\.jsonl:1: parameters is -1"),
        ("a.jsonl", '{"N": 1, "D": 1, "loss": null}', r"a\.jsonl:1: loss is None"),
        ("a.jsonl", '{"N": 1, "L": 1}', r"a\.jsonl:1: no tokens \(or D\) among N, L"),
        ("a.jsonl", "[1, 2]", r"a\.jsonl:1: no JSON object: '\[1, 2\]'"),
        ("a.jsonl", "", "no runs in it"),
    ],
)
def test_rows_that_say_nothing_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_runs(tmp_path / name)


def test_no_runs_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no runs at .*runs\.jsonl"):
        read_runs(tmp_path)
