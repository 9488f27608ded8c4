import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from limner.training import checkpoints
from limner.training.checkpoints import snapshots
from limner.training.trainer import Trainer
from tests.training.runs import FIELDS, events, losses, trainer, validation, weights

ROOT = Path(__file__).parents[2]
OPTIONS = {"average": 0.9, "validation": validation}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run without a stop: its losses and its last weights."""
    folder = tmp_path_factory.mktemp("straight")
    run = trainer(folder, **OPTIONS)
    run.fit()
    return losses(folder), weights(run), events(folder, "validation")


def assert_same(run, folder, straight):
    assert losses(folder) == straight[0]
    assert events(folder, "validation") == straight[2]
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, straight[1][name]), name


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 4, 5, 8, 12])
def test_a_run_stopped_anywhere_goes_on_bit_for_bit(tmp_path, straight, monkeypatch, step):
    """Five steps are an epoch and a half, so most stops are in the middle of one."""
    take = Trainer.step

    def step_and_die(self):
        if self.standing.step == step - 1 and not list(tmp_path.glob("died")):
            (tmp_path / "died").touch()
            raise Killed
        take(self)

    monkeypatch.setattr(Trainer, "step", step_and_die)
    with pytest.raises(Killed):
        trainer(tmp_path, **OPTIONS).fit()
    run = trainer(tmp_path, **OPTIONS)
    run.fit()
    assert_same(run, tmp_path, straight)


@pytest.mark.parametrize("place", ["_write", "sync_folder"])
def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, straight, monkeypatch, place):
    act, calls = getattr(checkpoints, place), []

    def die(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return act(*arguments)

    monkeypatch.setattr(checkpoints, place, die)
    with pytest.raises(Killed):
        trainer(tmp_path, **OPTIONS).fit()
    monkeypatch.setattr(checkpoints, place, act)
    run = trainer(tmp_path, **OPTIONS)
    run.fit()
    assert_same(run, tmp_path, straight)
    assert not list((tmp_path / "checkpoints").glob(".*"))


PROGRAM = """
import sys
from pathlib import Path
from tests.training.runs import trainer, validation
folder = Path(sys.argv[1])
trainer(folder, average=0.9, validation=validation, save_every=1).fit()
"""


def test_kill_9_loses_at_most_the_step_in_flight(tmp_path, straight):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    for enough in (2, 6):
        process = subprocess.Popen(command, env=environment, cwd=ROOT)
        while not reached(tmp_path, enough) and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
        logged = losses(tmp_path)[-1][0]
        assert int(snapshots(tmp_path / "checkpoints")[-1].name[5:]) >= logged - 1
    run = trainer(tmp_path, **OPTIONS)
    run.fit()
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 13))
    for (_, one), (_, other) in zip(losses(tmp_path), straight[0], strict=True):
        assert one == pytest.approx(other, abs=1e-4)  # this process may use more threads


def reached(folder, step):
    return any(int(path.name[5:]) >= step for path in snapshots(folder / "checkpoints"))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_in_flight(tmp_path, straight, kind):
    def interrupt(event):
        if event["event"] == "step" and event["step"] == 7:
            signal.raise_signal(kind)

    run = trainer(tmp_path, **OPTIONS, listeners=(interrupt,))
    handler = signal.getsignal(kind)
    assert run.fit().step == 7
    assert signal.getsignal(kind) is handler
    assert not (tmp_path / "model").exists()
    assert events(tmp_path, "end") == [{"event": "end", "step": 7, "finished": False}]
    run = trainer(tmp_path, **OPTIONS)
    run.fit()
    assert_same(run, tmp_path, straight)


@pytest.mark.parametrize("kind", ["muon", "adafactor"])
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, kind):
    options = {"optimizer": {"kind": kind, "rate": 1e-2}, "keep": 5}
    run = trainer(tmp_path, **options)
    run.fit()
    expected, last = losses(tmp_path), weights(run)
    newest = snapshots(tmp_path / "checkpoints")[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    again = trainer(tmp_path, **options)
    again.fit()
    assert losses(tmp_path) == expected
    assert all(torch.equal(tensor, last[name]) for name, tensor in weights(again).items())


def test_old_checkpoints_go(tmp_path):
    trainer(tmp_path, save_every=2, keep=3).fit()
    names = [path.name for path in snapshots(tmp_path / "checkpoints")]
    assert names == ["step-00000008", "step-00000010", "step-00000012"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trainer(tmp_path).fit()
    with pytest.raises(ValueError, match=r"is of another network \(network\.blocks\.0\."):
        trainer(tmp_path, fields=FIELDS | {"intermediate_size": 40}).fit()
    with pytest.raises(ValueError, match="shuffled with seed 0, not 1"):
        trainer(tmp_path, seed=1).fit()


def test_a_damaged_checkpoint_is_named(tmp_path):
    trainer(tmp_path).fit()
    newest = snapshots(tmp_path / "checkpoints")[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"step-00000012 is damaged .*remove it to go on"):
        trainer(tmp_path).fit()


def test_a_full_disk_keeps_what_was_saved(tmp_path, monkeypatch):
    def no_room(folder, needed, purpose):
        raise OSError(f"no disk space in {folder}")

    trainer(tmp_path, steps=5).fit()
    monkeypatch.setattr(checkpoints, "require_space", no_room)
    with pytest.raises(OSError, match="no disk space"):
        trainer(tmp_path).fit()
    assert [path.name for path in snapshots(tmp_path / "checkpoints")] == ["step-00000005"]


def test_two_runs_in_one_folder_are_refused(tmp_path):
    def second(event):
        if event["event"] == "step":
            with pytest.raises(ValueError, match="another run is at work in"):
                trainer(tmp_path).fit()

    trainer(tmp_path, steps=1, listeners=(second,)).fit()
