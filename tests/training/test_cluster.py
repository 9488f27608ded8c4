"""One test with Ray, which takes long to start; what is around it is tested without."""

import os
import signal
import sys
from typing import Any

import pytest

from limner.data.preparing import prepare
from limner.data.sources import text_source
from limner.training.checkpoints import snapshots
from limner.training.cluster import cause, follow, gpus_each, processors_each, train_on_cluster
from tests.training import test_pretraining as texts
from tests.training.runs import losses

RUN = {"optimizer": {"rate": 1e-4}, "save_every": 1, "steps": 150}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "texts").write_text("\n".join(f"number {n} is not {n + 1}." for n in range(150)))
    prepare(text_source(tmp_path / "texts", unit="line"), texts.tokenizer(), tmp_path / "tokens")
    return tmp_path / "tokens"


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of Ray and what it starts
def test_two_workers_train_as_one_process_and_one_that_dies_costs_a_step(data, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'limner[cluster]'")
    pytest.importorskip("ray.train.torch", reason="pip install 'limner[cluster]'")
    texts.run(data, tmp_path / "here", **RUN)

    settings = texts.settings(data, tmp_path / "there", **RUN)
    ray.init(log_to_driver=False, include_dashboard=False, num_cpus=2)
    try:
        with pytest.raises(ConnectionError, match="the same command goes on from there"):
            train_on_cluster(settings, 2, kill_a_worker_at(2))
        assert len(snapshots(tmp_path / "there" / "checkpoints")) >= 2
        told: list[Any] = []
        train_on_cluster(settings, 2, told.append)
    finally:
        ray.shutdown()
    assert told[-1] == {"event": "end", "step": 150, "finished": True}
    here, there = (dict(losses(tmp_path / name)) for name in ("here", "there"))
    assert there == pytest.approx(here, abs=1e-5)
    assert (tmp_path / "there" / "model").is_dir()


def kill_a_worker_at(step):
    psutil = pytest.importorskip("psutil", reason="Ray brings it")

    def listen(event):
        if event["event"] != "step" or event["step"] < step:
            return
        for child in psutil.Process().children(recursive=True):
            if child.name().startswith("ray::RayTrain") and child.is_running():
                os.kill(child.pid, signal.SIGKILL)
                return

    return listen


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "each"),
    [
        ([{"CPU": 8.0}], 2, 0, 4),
        ([{"CPU": 8.0}, {"CPU": 3.0}], 3, 0, 3),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 32.0}], 2, 1, 8),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 6.0, "GPU": 1.0}], 2, 1, 4),
    ],
)
def test_processors_are_shared_out_so_that_all_workers_fit(nodes, workers, gpus, each):
    assert processors_each(nodes, workers, gpus) == each


@pytest.mark.parametrize(("gpus", "room"), [(0, 2), (1, 1)])
def test_a_cluster_without_room_is_said(gpus, room):
    with pytest.raises(ValueError, match=f"workers=3 need .* the cluster has room for {room}"):
        processors_each([{"CPU": 2.0, "GPU": 1.0}], 3, gpus)


def test_a_gpu_is_given_where_there_are_so_many_or_it_is_asked_for():
    nodes = [{"CPU": 4.0, "GPU": 2.0}]
    assert [gpus_each("auto", nodes, workers) for workers in (2, 3)] == [1, 0]
    assert [gpus_each(device, nodes, 3) for device in ("cuda", "cpu")] == [1, 0]


def test_what_happens_is_passed_on_to_the_last_event():
    waiting = [[{"event": "step"}], [{"event": "end"}], []]
    told: list[Any] = []

    def fail():
        raise ValueError("at the end")

    error = follow(fail, lambda: waiting.pop(0) if waiting else [], told.append)
    assert str(error) == "at the end"
    assert told[0] == {"event": "step"}


def test_a_workers_own_error_is_said_rather_than_that_it_died():
    lost, full = ConnectionError("another has died"), OSError("the disk is full")
    assert cause([lost, full], RuntimeError()) is full
    assert cause([lost], RuntimeError()) is lost


def test_under_torchrun_a_cluster_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave torchrun out"):
        train_on_cluster(texts.settings(data, tmp_path), 2, print)


def test_without_ray_one_line_says_how_to_get_it(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"a cluster needs ray: pip install 'limner\[cluster\]'"):
        train_on_cluster(texts.settings(data, tmp_path), 2, print)
