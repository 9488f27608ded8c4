"""`limner pretrain`: train a model from raw text."""

from __future__ import annotations

from typing import ClassVar

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import remark
from limner.commands.training_display import display
from limner.training.pretraining import PretrainSettings


class Command(PretrainSettings, CommandSettings):
    """Train a model from raw text.

    `limner pretrain DATA FOLDER --depth 4` derives a model and its training from one number;
    without depth, `model.` settings are the fields of a config.json. Ctrl-C saves and ends; the
    same command goes on from there. The folder gets metrics.jsonl, checkpoints/, and model/, which
    every other command takes.
    """

    positional: ClassVar[tuple[str, ...]] = ("data", "folder")


def run(settings: Command) -> None:
    """Train, and print where the model is."""
    from limner.training.parallel import joined
    from limner.training.pretraining import assemble, run_device
    from limner.training.trainer import MODEL

    with joined(settings.parallel, run_device(settings.device)) as ranks, display() as listener:
        trainer, derived = assemble(settings, (listener,), ranks)
        for line in derived.lines() if derived and ranks.first else []:
            remark(line)
        trainer.fit()
    if not ranks.first:
        return
    if not trainer.done:
        remark("stopped; the same command goes on from here")
        return
    print(settings.folder / MODEL)
