import json

import pytest

from limner.scaling.laws import Additive
from tests.scaling.planted import planted

LAW = Additive(E=1.2, A=30.0, B=90.0, alpha=0.31, beta=0.42)


@pytest.fixture
def runs(tmp_path):
    """A file of nine runs of a known law, and one of a tenth, larger one."""
    rows = planted(LAW, sizes=(1e4, 1e5, 1e6), tokens=(1e5, 1e6, 1e7))
    rows += planted(LAW, sizes=(1e7,), tokens=(1e8,))
    lines = [f"{run.parameters},{run.tokens},{run.loss}\n" for run in rows]
    for name, part in (("small.csv", lines[:-1]), ("large.csv", lines[-1:])):
        (tmp_path / name).write_text("N,D,L\n" + "".join(part), encoding="utf-8")
    return tmp_path / "small.csv"


def test_from_a_corpus_to_a_plan(limner, tiny, write, tmp_path):
    text = b"\n\n".join(b"number %d is the number before %d." % (n, n + 1) for n in range(80))
    limner(
        "data", "prepare", write("a.txt", text), tmp_path / "tokens", "--tokenizer", tiny,
        "--unit", "paragraph",
    )  # fmt: skip
    words = ["scale", "sweep", tmp_path / "tokens", tmp_path / "sweep", "--sizes", "1x16"]
    words += ["--sizes", "1x24", "--tokens", "32", "--tokens", "64", "training.validation=0.2"]
    words += ["training.length=16", "training.rows=1"]
    swept = limner(*words)
    assert (swept.code, swept.out) == (0, f"{tmp_path / 'sweep' / 'runs.jsonl'}\n"), swept.err
    assert swept.err.count("run ") == 4
    assert "run 4/4  1x24-64  loss 4." in swept.err
    assert limner(*words).err == ""  # nothing is left to do
    few = limner("scale", "fit", tmp_path / "sweep")
    assert (few.code, few.err) == (
        2, "error: 4 runs do not determine a law of 5 constants: 6 are the least\n",
    )  # fmt: skip


def test_a_fit_and_what_follows_from_it(limner, runs, tmp_path):
    words = ["scale", "fit", runs, "--resamples", "10", "--held-out", tmp_path / "large.csv"]
    said = limner(*words)
    assert said.code == 0, said.err
    assert "  alpha  0.31 " in said.out
    assert "best   N grows as C^0.575, D as C^0.425" in said.out
    assert said.out.splitlines()[-1].endswith(": +0.00%")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads(limner(*words, "--json").out)
    assert facts["additive"]["beta"] == pytest.approx(0.42)
    assert facts["runs"] == 9
    planned = limner(
        "scale", "plan", tmp_path / "law.json", "--peak", "1e9", "--hours", "100", "--price", "3",
        "--vocabulary", "512", "--length", "128",
    )  # fmt: skip
    assert planned.code == 0, planned.err
    assert "cost        300" in planned.out
    assert "limner pretrain DATA FOLDER --depth " in planned.out.splitlines()[-1]


def test_a_plan_by_a_published_law(limner):
    facts = json.loads(limner("scale", "plan", "besiroglu", "--compute", "5.76e23", "--json").out)
    assert facts["tokens"] / facts["parameters"] == pytest.approx(20, rel=0.1)
    assert (facts["interval"], facts["hours"]) == (None, None)
    said = limner("scale", "plan", "chinchilla", "--tokens", "1e9", "--peak", "1e14")
    assert "time        " in said.out
    assert "cost" not in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "tokens"], "folder: missing"),
        (["sweep", "nowhere", "out", "--sizes", "1", "--tokens", "9"], "no tokenizer at nowhere"),
        (["fit", "nowhere.csv"], "no runs at 'nowhere.csv'"),
        (["plan", "chinchila", "--compute", "1e18"], "did you mean 'chinchilla'?"),
        (["plan", "chinchilla"], "give one of compute, hours with peak, tokens and parameters"),
        (["plan", "chinchilla", "--hours", "3"], "hours needs peak"),
        (["plan", "chinchilla", "--compute", "1e18", "--price", "3"], "price needs peak"),
        (["plan", "chinchilla", "--compute", "1", "--peak", "1", "--hours", "1"], "twice"),
        (["plan", "chinchilla", "--tokens", "1", "--tokens", "2"], "tokens: 2 values"),
        (["scan", "chinchilla"], "expected 'sweep', 'fit' or 'plan'"),
        (["sweep", "tokens", "out", "training.optimizer.rat=1"], "did you mean 'rate'?"),
    ],
)
def test_mistakes(refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("scale", *words)
