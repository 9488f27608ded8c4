import json

import pytest

from limner.commands.training_display import Lines, duration, summary

TEXT = b"\n\n".join(b"number %d is the number before %d." % (n, n + 1) for n in range(80))
MODEL = ["model.hidden_size=24", "model.intermediate_size=32", "depth=1", "length=16"]


@pytest.fixture
def data(limner, tiny, write, tmp_path):
    prepared = limner(
        "data", "prepare", write("a.txt", TEXT), tmp_path / "tokens", "--tokenizer", tiny,
        "--unit", "paragraph",
    )  # fmt: skip
    assert prepared.code == 0, prepared.err
    assert "documents   80" in prepared.out
    return tmp_path / "tokens"


def test_from_text_to_a_model_that_answers(limner, data, tmp_path):
    trained = limner(
        "pretrain", data, tmp_path / "run", *MODEL, "steps=4", "rows=2", "validation=0.2",
        "samples=[number]", "sample_tokens=3", "measure_peak=false", "validate_every=2",
    )  # fmt: skip
    assert (trained.code, trained.out) == (0, f"{tmp_path / 'run' / 'model'}\n"), trained.err
    assert "model.hidden_size              24" in trained.err
    assert "step 1/4  loss 6." in trained.err
    assert "step 4  validation loss" in trained.err
    assert "bits a byte" in trained.err
    assert "  number|" in trained.err
    answered = limner("generate", tmp_path / "run" / "model", "number", "--raw", "max_tokens=3")
    assert (answered.code, answered.err.count("error")) == (0, 0)


def test_data_info_checks_the_shards(limner, refused, data):
    assert "tokens      " in limner("data", "info", data).out
    shard = data / "00000.tokens"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    assert "00000.tokens has changed since it was made" in refused("data", "info", data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data", "prepare", "nothing.txt", "out", "--tokenizer", "TINY"],
            "no file at 'nothing.txt'",
        ),
        (["data", "prepare", "topics", "out"], "tokenizer: missing"),
        (["data", "prepare", "topics", "--tokenizer", "TINY"], "folder: missing"),
        (["pretrain", "nowhere", "out", "depth=1"], "no tokenizer at nowhere"),
        (["pretrain", "nowhere"], "folder: missing"),
        (["pretrain", "nowhere", "out", "workers=3"], "workers is for a cluster: give --cluster"),
        (["pretrain", "nowhere", "out", "optimizer.rat=1"], "did you mean 'rate'?"),
    ],
)
def test_mistakes(refused, tiny, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*[tiny if word == "TINY" else word for word in words])


def test_a_step_for_people(capsys):
    event = {"event": "step", "step": 3, "loss": None, "rate": 6e-4, "tokens_per_second": 1234.5}
    event |= {"peak_share": 0.505, "memory": 2.5e9, "seconds_left": 3725, "refused": 2}
    assert summary(event) == (
        "loss not finite  rate 6.00e-04  1,234 tokens/s  50% of the peak  2.50 GB  1 h 2 min left  "
        "2 steps refused"
    )
    assert [duration(s) for s in (59.9, 61, 7199)] == ["59 s", "1 min 1 s", "1 h 59 min"]
    lines = Lines()
    for extra in ({"event": "start", "steps": 3}, event, json.loads(json.dumps(event))):
        lines({**event, **extra})
    assert capsys.readouterr().err.count("step 3/3") == 2


def test_the_doctor_passes_a_sound_run_and_fails_one_that_costs_too_much(
    limner, refused, data, tmp_path
):
    words = ["doctor", data, tmp_path / "run", *MODEL, "steps=4", "rows=2", "validation=0.2"]
    assert all(line.startswith("OK ") for line in limner(*words).out.splitlines())
    failed = limner(*words, "--price", "1e12", "--budget", "1")
    assert failed.code == 2
    assert failed.err == "error: 1 of 14 checks failed: cost\n"
