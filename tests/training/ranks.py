"""What each process of the distributed tests does: some runs, one after another.

Called by torchrun with JSON: a list of [folder, options of the run].
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from limner.training.parallel import ParallelSettings, joined
from tests.training.runs import FIELDS, trainer, validation

#: Heads that two processes can share.
SHARED = FIELDS | {"num_key_value_heads": 2}


def run(ranks, folder, kind="ddp", stop_at=None, die_at=None, **options):
    def interrupt(event):
        if event["event"] == "step" and event["step"] == stop_at:
            trained.stopping = True

    trained = trainer(
        Path(folder),
        fields=SHARED,
        validation=validation,
        listeners=(interrupt,),
        ranks=replace(ranks, kind=kind),
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
