"""A run in processes that Ray Train starts on a cluster (Moritz et al. 2018), as torchrun would.

Each runs the same function as a process of torchrun. What they tell comes back through an actor,
and so does the wish to stop go there. The files must be where every machine finds them.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from limner.data.extra import cluster
from limner.training.events import Event, Listener
from limner.training.interruption import stopping_on_signals
from limner.training.parallel import DIED
from limner.training.pretraining import PretrainSettings, begun

logger = logging.getLogger(__name__)

#: Seconds between two looks at what the workers tell.
PAUSE = 0.2


class Mailbox:
    """What the workers tell and what they are to be told: an actor of the cluster."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.errors: list[Exception] = []
        self.stopping = False

    def tell(self, event: Event) -> None:
        """Something happened."""
        self.events.append(event)

    def fail(self, errors: list[Exception]) -> None:
        """A worker ends by these."""
        self.errors += errors

    def take(self) -> list[Event]:
        """What has happened since the last time."""
        events, self.events = self.events, []
        return events

    def failures(self) -> list[Exception]:
        """What workers ended by."""
        return self.errors

    def stop(self) -> None:
        """Let the run end after the step in flight."""
        self.stopping = True

    def to_stop(self) -> bool:
        """Whether the run is to end."""
        return self.stopping


def train_on_cluster(settings: PretrainSettings, workers: int, listener: Listener) -> None:
    """Train in `workers` processes of the cluster at RAY_ADDRESS, or of one of this machine's.

    Ctrl-C ends the run after the step in flight, as it does without a cluster.

    Raises:
        ValueError: Ray is not installed, the cluster has no room, or what `Trainer.fit` raises.
        ConnectionError: a worker died, or the cluster does not answer; the last checkpoint stays.
        OSError: what `Trainer.fit` raises.
    """
    if "WORLD_SIZE" in os.environ:
        raise ValueError("--cluster starts the processes by itself: leave torchrun out")
    with cluster("ray.train.torch", "training on a cluster") as ray:
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what fails is said here
        mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        fit = launcher(ray, settings, workers, mailbox)
        # Ray prints on standard output what became of its workers, which is said in one line below.
        with stopping_on_signals(mailbox.stop.remote), redirect_stdout(io.StringIO()):
            error = follow(fit, lambda: ray.get(mailbox.take.remote()), listener)
        if error is not None:
            logger.info("%s", error)
            raise cause(ray.get(mailbox.failures.remote()), error) from error


def launcher(
    ray: Any, settings: PretrainSettings, workers: int, mailbox: Any
) -> Callable[[], object]:
    """What starts the workers and waits for them; ValueError if the cluster has no room."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = gpus_each(settings.device, nodes, workers)
    scaling = ScalingConfig(
        num_workers=workers,
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": processors_each(nodes, workers, gpus), "GPU": gpus},
    )
    work = partial(_work, settings, Path.cwd(), mailbox)

    def fit() -> object:
        with tempfile.TemporaryDirectory() as storage:  # of Ray's own notes
            run = RunConfig(name="limner", storage_path=storage)
            return TorchTrainer(work, scaling_config=scaling, run_config=run).fit()

    return fit


def gpus_each(device: str, nodes: Sequence[Mapping[str, float]], workers: int) -> int:
    """How many GPUs each worker is to have: one, if that is asked for or there are so many."""
    there = sum(node.get("GPU", 0.0) for node in nodes)
    return int(device.startswith("cuda") or (device == "auto" and there >= workers))


def processors_each(nodes: Sequence[Mapping[str, float]], workers: int, gpus: int) -> int:
    """The most processors that each of `workers` can have beside its `gpus`.

    `nodes` say what each machine has, by the names "CPU" and "GPU". Raises ValueError if there is
    not one for each.
    """

    def room(cpus: int) -> int:
        fits = (
            min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else workers)
            for node in nodes
        )
        return int(sum(fits))

    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    for cpus in range(most, 0, -1):
        if room(cpus) >= workers:
            return cpus
    kind = "a processor and a GPU" if gpus else "a processor"
    raise ValueError(
        f"workers={workers} need {kind} each, and the cluster has room for {room(1)}: ask for "
        "fewer, or add machines"
    )


def follow(
    fit: Callable[[], object], take: Callable[[], list[Event]], listener: Listener
) -> BaseException | None:
    """Run `fit` and pass on what happens meanwhile; what it ended by, if that is an error."""
    pool = ThreadPoolExecutor(1)
    running = pool.submit(fit)
    pool.shutdown(wait=False)  # so that a second Ctrl-C need not wait
    while not wait([running], PAUSE).done:
        for event in take():
            listener(event)
    for event in take():
        listener(event)
    return running.exception()


def cause(told: list[Exception], error: BaseException) -> BaseException:
    """What to raise for a run that failed by `error`, when its workers `told` this before they did.

    That another one died is the last thing to believe: it may have ended by its own error.
    """
    told = sorted(told, key=lambda each: isinstance(each, ConnectionError))
    if told:
        return told[0]
    failures = getattr(error, "worker_failures", {})
    from ray.exceptions import RayActorError

    died = any(isinstance(failure, RayActorError) for failure in failures.values())
    return ConnectionError(DIED) if died else error


def _work(settings: PretrainSettings, folder: Path, mailbox: Any) -> None:
    """What each worker does."""
    import ray

    def heed(_: Event) -> None:
        trainer.stopping = trainer.stopping or ray.get(mailbox.to_stop.remote())

    try:
        os.chdir(folder)  # Ray Train puts workers elsewhere, and settings may have relative paths
        with begun(settings, mailbox.tell.remote) as trainer:
            trainer.log.listeners = (*trainer.log.listeners, heed)
            trainer.fit()
    except (ValueError, OSError) as error:
        ray.get(mailbox.fail.remote([error]))
        raise
