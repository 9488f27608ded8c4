"""`limner pretrain`: train a model from raw text."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import remark
from limner.commands.training_display import display
from limner.training.events import Event, Listener
from limner.training.pretraining import PretrainSettings


class Command(PretrainSettings, CommandSettings):
    """Train a model from raw text.

    `limner pretrain DATA FOLDER --depth 4` derives a model and its training from one number;
    without depth, `model.` settings are the fields of a config.json. Ctrl-C saves and ends; the
    same command goes on from there. The folder gets metrics.jsonl, checkpoints/, and model/, which
    every other command takes.
    """

    positional: ClassVar[tuple[str, ...]] = ("data", "folder")

    cluster: bool = False
    """train in processes of the Ray cluster that RAY_ADDRESS names, or of one started here"""
    workers: int | None = Field(default=None, ge=1)
    """how many, with --cluster; 2 if not given"""


class Watch:
    """Shows what happens, and remembers whether the run came to its end.

    Only the first of several processes is told anything.
    """

    def __init__(self, show: Listener) -> None:
        self.show = show
        self.finished: bool | None = None

    def __call__(self, event: Event) -> None:
        """Something happened."""
        if event["event"] == "derived":
            for line in event["lines"]:
                remark(line)
        elif event["event"] == "end":
            self.finished = event["finished"]
        self.show(event)


def run(settings: Command) -> None:
    """Train, and print where the model is."""
    from limner.training.trainer import MODEL

    if settings.workers is not None and not settings.cluster:
        raise ValueError("workers is for a cluster: give --cluster too")
    with display() as show:
        watch = Watch(show)
        train(settings, watch)
    if watch.finished is None:
        return
    if not watch.finished:
        remark("stopped; the same command goes on from here")
        return
    print(settings.folder / MODEL)


def train(settings: Command, listener: Listener) -> None:
    """Here, in the processes of torchrun, or on a cluster."""
    if settings.cluster:
        from limner.training.cluster import train_on_cluster

        train_on_cluster(settings, settings.workers or 2, listener)
        return
    from limner.training.pretraining import begun

    with begun(settings, listener) as trainer:
        trainer.fit()
