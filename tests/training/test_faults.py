"""What goes wrong from outside costs at most the step in flight, and is said in one line."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from limner.data.corpus import open_corpus
from limner.data.preparing import prepare
from limner.data.sources import text_source
from limner.training import checkpoints
from limner.training.checkpoints import snapshots
from tests.training.runs import events, losses, trainer
from tests.training.test_pretraining import tokenizer

ROOT = Path(__file__).parents[2]

#: Forks a child that runs, kills it at a random moment, and so on; then lets one run to the end.
#: Children are forked since importing everything would take far longer than what they do.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
from limner.training.checkpoints import snapshots
from tests.training.runs import trainer, validation

folder = Path(sys.argv[1])
options = {"average": 0.9, "validation": validation, "save_every": 1}
trainer(folder / "warm", steps=1, **options).fit()  # imports what is imported late

def run(name):
    child = os.fork()
    if not child:
        trainer(folder / name, steps=60, **options).fit()
        os._exit(0)
    return child

def reached():
    found = snapshots(folder / "killed" / "checkpoints")
    return int(found[-1].name[5:]) if found else 0

os.waitpid(run("straight"), 0)
chance = random.Random(0)
places, codes = [0], []
for _ in range(20):
    child = run("killed")
    enough = places[-1] + chance.randrange(3)
    while reached() < enough:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    codes.append(os.waitpid(child, 0)[1])
    places.append(reached())
os.waitpid(run("killed"), 0)
print(json.dumps({"places": places, "codes": codes}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_kill_9_twenty_times_over_changes_no_loss(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["codes"] == [signal.SIGKILL] * 20, said
    assert said["places"] == sorted(said["places"]), said
    assert len(set(said["places"])) > 5, said
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    validations = [events(tmp_path / name, "validation") for name in ("killed", "straight")]
    assert validations[0] == validations[1]
    models = [tmp_path / name / "model" / "model.safetensors" for name in ("killed", "straight")]
    assert models[0].read_bytes() == models[1].read_bytes()


@pytest.mark.parametrize("place", ["save_file", "_finish"])
def test_a_disk_that_fills_up_while_saving_costs_that_checkpoint_only(tmp_path, monkeypatch, place):
    act = getattr(checkpoints, place)

    def full(*arguments, **options):
        if snapshots(tmp_path / "checkpoints"):
            raise OSError(errno.ENOSPC, "No space left on device")
        act(*arguments, **options)

    trainer(tmp_path / "straight").fit()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, place, full)
        with pytest.raises(OSError, match=r"no disk space in .*: a checkpoint needs"):
            trainer(tmp_path).fit()
    assert [path.name for path in snapshots(tmp_path / "checkpoints")] == ["step-00000005"]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    trainer(tmp_path).fit()
    assert losses(tmp_path) == losses(tmp_path / "straight")


def test_a_real_limit_on_files_is_a_full_disk(tmp_path):
    """The system refuses files beyond 40 kB, as a quota would; a checkpoint is larger."""
    program = """
import resource, signal, sys
from pathlib import Path
from tests.training.runs import trainer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    trainer(Path(sys.argv[1])).fit()
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert "checkpoints" in done.stdout
    assert snapshots(tmp_path / "checkpoints") == []
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "texts").write_text("\n".join(f"number {n} is not {n + 1}." for n in range(50)))
    prepare(
        text_source(tmp_path / "texts", unit="line"),
        tokenizer(),
        tmp_path / "tokens",
        shard_tokens=100,
    )
    return sorted((tmp_path / "tokens").glob("*.tokens"))


def test_a_shard_that_is_cut_off_is_named(shards):
    shards[0].write_bytes(shards[0].read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{shards[0].name} is damaged: it has \d+ bytes instead"):
        open_corpus(shards[0].parent)


def test_a_shard_that_changed_since_the_manifest_is_named(shards):
    data = bytearray(shards[-1].read_bytes())
    data[10] ^= 1
    shards[-1].write_bytes(data)
    with pytest.raises(ValueError, match=rf"{shards[-1].name} has changed since it was made"):
        open_corpus(shards[0].parent)


def test_a_shard_that_is_gone_is_named(shards):
    shards[0].unlink()
    with pytest.raises(FileNotFoundError, match=f"{shards[0].name} is missing"):
        open_corpus(shards[0].parent)
