import json
import os
import signal

import pytest

from limner.data.preparing import prepare
from limner.data.sources import text_source
from limner.scaling.runs import RUNS, read_runs
from limner.scaling.sweeping import RunSettings, SweepSettings, plan_runs, sweep
from tests.training.test_pretraining import tokenizer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts").write_text("\n".join(f"number {n} is not {n + 1}." for n in range(150)))
    prepare(text_source(folder / "texts", unit="line"), tokenizer(), folder / "tokens")
    return str(folder / "tokens")


def settings(data, folder, training=(), **changes):
    run = {"length": 16, "rows": 2, "validation": 0.1} | dict(training)
    fields = {"data": data, "folder": folder, "sizes": ["1x16", "2x16"], "tokens": [64, 128]}
    fields |= {"compute": [], "training": RunSettings.model_validate(run)}
    return SweepSettings.model_validate(fields | changes)


def records(folder):
    return [json.loads(line) for line in (folder / RUNS).read_text().splitlines()]


def ignore(progress):
    """Nobody watches."""


def test_a_sweep_trains_every_size_with_every_number_of_tokens(data, tmp_path):
    seen: list = []
    assert sweep(settings(data, tmp_path), seen.append)
    written = records(tmp_path)
    assert [r["name"] for r in written] == ["1x16-64", "2x16-64", "1x16-128", "2x16-128"]
    assert [r["tokens"] for r in written] == [64, 64, 128, 128]
    assert [r["steps"] for r in written] == [2, 2, 4, 4]
    assert written[1]["parameters"] > written[0]["parameters"]
    assert len(read_runs(tmp_path)) == 4
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_finished_runs_are_left_alone_and_new_ones_added(data, tmp_path):
    sweep(settings(data, tmp_path, sizes=["1x16"]), ignore)
    before = records(tmp_path)
    seen: list = []
    sweep(settings(data, tmp_path, sizes=["1x16"], tokens=[64, 96, 128]), seen.append)
    assert {progress.name for progress in seen} == {"1x16-96"}
    assert records(tmp_path)[:2] == before
    assert len(records(tmp_path)) == 3


def test_a_sweep_that_was_interrupted_comes_to_the_same_losses(data, tmp_path):
    def interrupt(progress):
        if progress.name == "1x16-128" and progress.loss is not None and not stopped:
            stopped.append(progress.name)
            os.kill(os.getpid(), signal.SIGINT)

    stopped: list = []
    sweep(settings(data, tmp_path / "straight"), ignore)
    assert not sweep(settings(data, tmp_path / "stopped"), interrupt)
    assert len(records(tmp_path / "stopped")) == 2
    assert sweep(settings(data, tmp_path / "stopped"), ignore)
    assert records(tmp_path / "stopped") == records(tmp_path / "straight")


def test_a_budget_of_operations_gives_small_models_more_tokens(data, tmp_path):
    runs = plan_runs(settings(data, tmp_path, tokens=[], compute=[1e8, 1e9]))
    assert len(runs) == 4
    assert [run.computation for run in runs] == pytest.approx([1e8, 1e8, 1e9, 1e9], rel=0.01)
    small, large = (next(run for run in runs if run.depth == depth) for depth in (1, 2))
    assert small.tokens > large.tokens


def test_without_a_width_the_dial_gives_it(data, tmp_path):
    (run,) = plan_runs(settings(data, tmp_path, sizes=["2"], tokens=[64]))
    (same,) = plan_runs(settings(data, tmp_path, sizes=["2x128"], tokens=[64]))
    assert (run.name, run.parameters) == ("2-64", same.parameters)


def test_other_settings_need_another_folder(data, tmp_path):
    sweep(settings(data, tmp_path, sizes=["1x16"], tokens=[64]), ignore)
    changed = settings(data, tmp_path, {"rows": 1}, sizes=["1x16"], tokens=[64])
    with pytest.raises(ValueError, match=r"training\.rows is 1, and was 2 for the runs in"):
        sweep(changed, ignore)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": []}, "sizes: missing"),
        ({"sizes": ["2*96"]}, "the size '2[*]96' is neither a depth nor DEPTHxWIDTH"),
        ({"sizes": ["0x96"]}, "the size '0x96' is neither"),
        ({"tokens": []}, "give tokens, or compute"),
        ({"compute": [1e9]}, "give tokens, or compute"),
        ({"tokens": [64, 0]}, "a run cannot see 0"),
        ({"training": RunSettings(steps=3)}, r"training\.steps: how many steps"),
        ({"data": "nowhere"}, "no tokenizer at nowhere"),
    ],
)
def test_grids_that_cannot_be_trained(data, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sweep(settings(**({"data": data, "folder": tmp_path} | changes)), ignore)
    assert not (tmp_path / RUNS).exists()


def test_a_run_that_fails_is_named(data, tmp_path):
    wild = {"optimizer": {"rate": 1e30}, "clip": None}
    with pytest.raises(ValueError, match=r"1x16-1024: 20 steps in a row were not finite"):
        sweep(settings(data, tmp_path, wild, sizes=["1x16"], tokens=[1024]), ignore)
