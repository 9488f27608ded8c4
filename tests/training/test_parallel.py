"""Two processes do what one does. They are started twice: to run, and for one of them to die."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limner.data.batches import batches
from limner.data.corpus import corpus_of_documents
from limner.data.rows import PackedRows, in_order
from limner.objectives.loss import Loss, Sum
from limner.training.checkpoints import snapshots
from limner.training.parallel import Ranks
from limner.training.sharing import norm, require_divisible
from tests.decoder_families import bloom
from tests.families import gpt2
from tests.objectives.batches import documents, network
from tests.training.ranks import SHARED
from tests.training.runs import events, losses, trainer, validation, weights

pytestmark = pytest.mark.timeout(600)  # two processes on a busy machine take their time
ROOT = Path(__file__).parents[2]
KINDS = ("ddp", "fsdp", "tensor")
OPTIONS = {"average": 0.9, "micro_rows": 1}
OPTIMIZERS = {"muon": {"kind": "muon", "rate": 1e-2}, "adafactor": {"kind": "adafactor"}}


def processes(*runs):
    """Run in two processes, as torchrun starts them."""
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.ranks", json.dumps([[str(f), o] for f, o in runs])]
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run in one process."""
    folder = tmp_path_factory.mktemp("one")
    run = trainer(folder, fields=SHARED, validation=validation, **OPTIONS)
    run.fit()
    return folder, weights(run)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Runs in two processes, of each kind; stopped and resumed; and resumed from one process."""
    folder = tmp_path_factory.mktemp("two")
    alone = trainer(folder / "from-one", fields=SHARED, validation=validation, **OPTIONS)
    alone.log.listeners = (lambda event: stop_at_7(alone, event),)
    alone.fit()
    runs: list[Any] = [(folder / kind, {"kind": kind, **OPTIONS}) for kind in KINDS]
    runs += [(folder / name, {"optimizer": each}) for name, each in OPTIMIZERS.items()]
    for kind in ("ddp", "fsdp"):
        again = {"kind": kind, **OPTIONS}
        stopped = again | {"stop_at": 7}
        runs += [(folder / f"again-{kind}", stopped), (folder / f"again-{kind}", again)]
    runs += [(folder / "from-one", {"kind": "fsdp", **OPTIONS})]
    runs += [(folder / "to-one", {"kind": "fsdp", **OPTIONS, "stop_at": 7})]
    done = processes(*runs)
    assert done.returncode == 0, done.stderr
    return folder


def stop_at_7(run, event):
    run.stopping = event["event"] == "step" and event["step"] == 7


def assert_alike(folder, other, kind="step", tolerance=1e-5):
    found = [[(e["step"], e["loss"]) for e in events(each, kind)] for each in (folder, other)]
    assert [step for step, _ in found[0]] == [step for step, _ in found[1]]
    values = [[loss for _, loss in each] for each in found]
    assert values[0] == pytest.approx(values[1], abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_come_to_the_losses_and_weights_of_one(one, two, kind):
    assert_alike(two / kind, one[0])
    assert_alike(two / kind, one[0], "validation")
    trained = load_network(two / kind / "model")
    alone = load_network(one[0] / "model")
    for name, tensor in trained.named_parameters():
        torch.testing.assert_close(tensor, alone.get_parameter(name), atol=1e-4, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_does_the_same_in_two_processes(two, tmp_path, name):
    trainer(tmp_path, fields=SHARED, validation=validation, optimizer=OPTIMIZERS[name]).fit()
    assert_alike(two / name, tmp_path)
    assert_alike(two / name, tmp_path, "validation")


def load_network(folder):
    from limner.checkpoints.checkpoint import open_checkpoint

    return open_checkpoint(folder).network()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_go_on_bit_for_bit(two, kind):
    assert losses(two / f"again-{kind}") == losses(two / kind)


@pytest.mark.slow
def test_a_checkpoint_of_one_process_is_gone_on_with_by_two(one, two):
    assert_alike(two / "from-one", one[0])


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_is_gone_on_with_by_one(one, two):
    newest = snapshots(two / "to-one" / "checkpoints")[-1]
    assert newest.name == "step-00000007"
    assert len(list(newest.glob("*.safetensors"))) == 2
    trainer(two / "to-one", fields=SHARED, validation=validation, **OPTIONS).fit()
    assert_alike(two / "to-one", one[0])


@pytest.mark.slow
def test_a_process_that_dies_costs_the_step_in_flight_and_is_said_in_one_line(one, tmp_path):
    options = OPTIONS | {"save_every": 1}
    done = processes((tmp_path, options | {"kind": "fsdp", "die_at": 5}))
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(said) == 1
    assert "another process of this run has died" in said[0]
    assert snapshots(tmp_path / "checkpoints")[-1].name == "step-00000005"
    trainer(tmp_path, fields=SHARED, validation=validation, **options).fit()
    assert_alike(tmp_path, one[0])


# What needs no processes


def rows(count):
    corpus = corpus_of_documents(documents([9] * count))
    return list(batches(in_order(PackedRows(corpus, 8)), 2))[:count]


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_every_batch_of_a_validation_counts_once(count):
    given = rows(count)
    ranks = [Ranks("fsdp", number, 3) for number in range(3)]
    taken = [list(rank.portion(given)) for rank in ranks]
    assert len({len(each) for each in taken}) == 1
    seeds = [batch.seeds for each in taken for batch, share in each if share]
    assert sorted(seeds) == sorted(batch.seeds for batch in given)


def test_each_row_of_a_step_is_one_process_own():
    batch = rows(1)[0]
    parts = [Ranks("ddp", number, 2).share(batch).seeds for number in range(2)]
    assert sum(parts, ()) == batch.seeds
    assert Ranks("tensor", 1, 2).share(batch) is batch


def test_half_a_loss():
    loss = Loss(
        torch.tensor(4.0), torch.tensor(2.0), {"a": Sum(torch.tensor(1.0), torch.tensor(3.0))}
    )
    half = loss * 0.5
    assert (float(half.total), float(half.weight)) == (2.0, 1.0)
    assert (half + half).means() == loss.means()


def test_the_norm_is_that_of_one_vector():
    tensors = [torch.randn(3, 4), torch.randn(5)]
    whole = torch.cat([tensor.flatten() for tensor in tensors])
    torch.testing.assert_close(norm(tensors), whole.norm())


@pytest.mark.parametrize(
    ("ranks", "options", "message"),
    [
        (Ranks("ddp", 0, 3), {}, "rows=4 cannot be shared by 3 processes"),
        (Ranks("fsdp", 0, 2), {"optimizer": {"kind": "muon"}}, "optimizer.kind=muon needs whole"),
        (Ranks("tensor", 0, 2), {"optimizer": {"kind": "adafactor"}}, "adafactor needs whole"),
    ],
)
def test_what_cannot_be_shared_is_said(tmp_path, ranks, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, ranks=ranks, **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (gpt2(), "cannot cut 3 heads"),
        (bloom(), "cannot cut a layer of kind Attention"),
    ],
)
def test_layers_that_cannot_be_cut_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        require_divisible(network(fields, 0).blocks[0].mixer, 2)
