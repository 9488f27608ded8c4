"""What each process of the distributed tests does: some runs, one after another.

Called by torchrun with JSON: a list of [folder, options of the run]. With the option "command" the
run is one of `limner pretrain` with these settings.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from limner.config import read_settings
from limner.training.parallel import ParallelSettings, joined
from limner.training.pretraining import PretrainSettings, assemble
from tests.training.runs import FIELDS, trainer, validation

#: Heads that two processes can share.
SHARED = FIELDS | {"num_key_value_heads": 2}


def run(ranks, folder, kind="ddp", stop_at=None, die_at=None, command=None, **options):
    def interrupt(event):
        if event["event"] == "step" and event["step"] == stop_at:
            trained.stopping = True

    ranks, listeners = replace(ranks, kind=kind), (interrupt,)
    if command is not None:
        settings = read_settings(PretrainSettings, None, (), folder=folder, **command)
        trained, _ = assemble(settings, listeners, ranks)
    else:
        trained = trainer(
            Path(folder),
            fields=SHARED,
            validation=validation,
            listeners=listeners,
            ranks=ranks,
            **options,
        )
    take = trained.step

    def step_or_die():
        if trained.standing.step == die_at and not ranks.first:
            os._exit(1)
        take()

    trained.step = step_or_die  # type: ignore[method-assign]
    trained.fit()


if __name__ == "__main__":
    try:
        with joined(ParallelSettings(), torch.device("cpu")) as ranks:
            for folder, options in json.loads(sys.argv[1]):
                run(ranks, folder, **options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        os._exit(2)
