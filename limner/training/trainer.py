"""The trainer: one loop for every objective. It adds, divides once, and never learns the loss.

B rows, T time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from limner.checkpoints.checkpoint import save_folder
from limner.data.batches import Batch, collate
from limner.data.mixing import Stream
from limner.models.decoder import Decoder
from limner.models.network import Network
from limner.objectives.loss import Loss, Objective, add
from limner.tokenizers import Tokenizer
from limner.training.average import WeightAverage
from limner.training.balancing import Balancer
from limner.training.checkpoints import load_snapshot, save_snapshot, snapshots
from limner.training.curves import CURVES, draw_curves
from limner.training.events import LOG, EventLog, Listener
from limner.training.float8 import in_float8, require_float8
from limner.training.interruption import only_run, stopping_on_signals
from limner.training.optimizers import Optimizers
from limner.training.parallel import Lesson, Ranks
from limner.training.precision import in_half
from limner.training.recompute import recomputing
from limner.training.resuming import Standing, restore, take_snapshot, weights_of
from limner.training.samples import check_samples, write_samples
from limner.training.settings import TrainingSettings
from limner.training.sharing import settle
from limner.training.speed import Meter, matrix_product_peak, memory_used
from limner.training.tensorboard import EventFiles

#: Saving takes at most this share of the time, unless the settings say when to save.
SAVING_SHARE = 0.02
#: So many steps in a row that are not finite end the run.
HOPELESS = 20
MODEL = "model"


class Trainer:
    """Trains a network.

    Args:
        network: what is trained; on the device where it is to be trained.
        objective: what is learnt. If it is an `nn.Module`, its parameters are trained too.
        stream: rows for ever; its state is kept with the checkpoints.
        folder: gets `metrics.jsonl`, `checkpoints/` and, at the end, `curves.png` (where
            matplotlib is installed) and `model/`, a Hugging Face folder. If it holds checkpoints,
            the run goes on from the newest as if never stopped.
        settings: how.
        tokenizer: saved with the model; samples need it.
        validation: makes the batches to validate on, the same each time.
        bytes_per_token: of the validation text, to report bits a byte.
        listeners: told of each event.
        ranks: the processes that share the run, if there are several.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        stream: Stream,
        folder: Path,
        settings: TrainingSettings,
        *,
        tokenizer: Tokenizer | None = None,
        validation: Callable[[], Iterable[Batch]] | None = None,
        bytes_per_token: float | None = None,
        listeners: tuple[Listener, ...] = (),
        ranks: Ranks | None = None,
    ) -> None:
        self.network, self.objective, self.stream = network, objective, stream
        self.folder, self.settings, self.tokenizer = folder, settings, tokenizer
        self.validation, self.bytes_per_token = validation, bytes_per_token
        own = {"objective": objective} if isinstance(objective, nn.Module) else {}
        self.trained = nn.ModuleDict({"network": network, **own})
        check_samples(network, tokenizer, settings)
        self.device = next(network.parameters()).device
        self.ranks = ranks or Ranks()
        self.ranks.require_fit(settings.rows, settings.optimizer.kind)
        self.lesson = Lesson(network, objective, self.ranks)
        self.learner = self.ranks.spread(self.lesson)
        self.optimizers = Optimizers(self.trained, settings.optimizer)
        self.average = WeightAverage(network, settings.average) if settings.average else None
        self.balancer = Balancer(network, settings.balance_speed)
        if settings.tensorboard and self.ranks.first:
            listeners = (*listeners, EventFiles(folder / "tensorboard", folder / LOG))
        self.log = EventLog(folder / LOG, listeners, silent=not self.ranks.first)
        self.standing = Standing()
        self.stopping = self.leaving = False
        self._saved_at = self._saving_took = 0.0
        self.meter = Meter(network)
        self.half = in_half(settings.precision, network)
        self.narrow = settings.precision == "float8"
        if self.narrow:
            require_float8(self.device, self.ranks.kind)

    # The loop

    def fit(self) -> Standing:
        """Train to the end, or until Ctrl-C or SIGTERM, which end the run after the step in flight.

        Raises:
            ValueError: twenty steps in a row were not finite, the folder is in use, or what it
                holds does not fit the network or the data.
            OSError: the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        recompute = recomputing(self.network) if self.settings.recompute else nullcontext()
        narrow = in_float8(self.network) if self.narrow else nullcontext()
        alone = only_run(self.folder) if self.ranks.first else nullcontext()
        with alone, stopping_on_signals(self._stop), recompute, narrow:
            self.resume()
            self._begin()
            while not self.done and not self.leaving:
                self.step()
                self._look_around()
            self._end()
        return self.standing

    @property
    def done(self) -> bool:
        """Whether all steps are, or no better model came for too long."""
        return self.standing.stopped_early or self.standing.step >= self.settings.steps

    def step(self) -> None:
        """Move the parameters once."""
        started = time.perf_counter()
        rate = self.settings.schedule.share(self.standing.step, self.settings.steps)
        self.optimizers.set_rate(rate)
        batch = collate(list(islice(self.stream, self.settings.rows))).to(self.device)
        total = self.ranks.add(self.learn(self.ranks.share(batch)))
        norm = self.update(total)
        tokens = int(batch.mask.sum())
        self.standing.step += 1
        self.standing.tokens += tokens
        self.meter.note(time.perf_counter() - started, tokens, batch.tokens.shape[1])
        self._report(total, norm, rate)
        if self.standing.refused_in_a_row == HOPELESS:
            raise ValueError(
                f"{HOPELESS} steps in a row were not finite, up to step {self.standing.step}: "
                "lower optimizer.rate, or raise schedule.warmup"
            )

    def learn(self, batch: Batch) -> Loss:
        """The gradient of a batch, a micro-batch at a time; its loss."""
        parts = list(batch.split(self.settings.micro_rows or len(batch)))
        last = len(parts) - 1
        return add(self.accumulate(part, number == last) for number, part in enumerate(parts))

    def accumulate(self, batch: Batch, last: bool = True) -> Loss:
        """Add the gradient of a batch to what is there; its loss.

        With the `last` one, the gradients of all processes are added.
        """
        with self.ranks.accumulating(self.learner, last):
            with self.precision(), self.balancer.counting(batch.mask):
                total, loss = self.learner(batch)
            if total.requires_grad:
                torch.autograd.backward(total)
        return loss.detach()

    def update(self, total: Loss) -> Tensor:
        """Divide the gradient once and move, unless something is not finite; the gradient's norm.

        A step that is not finite leaves the parameters and what the optimizer keeps as they were.
        """
        self.ranks.add_gradients(self.optimizers.parameters)
        weight = self.ranks.gradient_weight(total.weight)
        norm = self.optimizers.divide_gradients(weight, self.settings.clip or math.inf)
        if bool((norm + total.total).isfinite()):
            self.optimizers.step()
            self.balancer.move(self.ranks.sharing_rows)
            self.standing.refused_in_a_row = 0
            if self.average is not None:
                self.average.update(self.standing.step)
        else:
            self.balancer.forget()
            self.standing.refused += 1
            self.standing.refused_in_a_row += 1
        self.optimizers.forget_gradients()
        return norm

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss on the validation batches, each counted by its weight."""
        assert self.validation is not None
        with self.precision(), self._averaged():
            losses = (
                self.lesson(batch.to(self.device), whole=True)[1].detach() * share
                for batch, share in self.ranks.portion(self.validation())
            )
            means = self.ranks.add(add(losses)).means()
            settle(self.lesson)
        if self.bytes_per_token is not None:
            means["bits_per_byte"] = means["loss"] / math.log(2) / self.bytes_per_token
        return means

    # Going on

    def save(self) -> None:
        """Write a checkpoint now."""
        started = time.perf_counter()
        snapshot, step = take_snapshot(self), self.standing.step
        save_snapshot(self._checkpoints, step, snapshot, self.settings.keep, self.ranks)
        self._saved_at = time.perf_counter()
        self._saving_took = self._saved_at - started

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one; ValueError if it is of another run."""
        found = snapshots(self._checkpoints)
        if found:
            restore(self, load_snapshot(found[-1], weights_of(self)), found[-1])
        if self.ranks.first:
            self.log.forget_after(self.standing.step if found else None)

    def save_model(self) -> Path:
        """Write the model as a Hugging Face folder, with the averaged weights if there are any."""
        with self._averaged():
            whole = self.ranks.whole(self.network)
            if self.ranks.first:
                save_folder(whole, self.folder / MODEL, self.tokenizer)
        return self.folder / MODEL

    # What happens between steps

    def _begin(self) -> None:
        dtype = torch.bfloat16 if self.half else torch.float32
        if self.settings.measure_peak:
            self.meter.peak = matrix_product_peak(self.device, dtype) * self.ranks.size
        self.log.tell(
            "start",
            step=self.standing.step,
            steps=self.settings.steps,
            parameters=sum(p.numel() for p in self.optimizers.parameters),
            peak=self.meter.peak,
            precision="float8" if self.narrow else str(dtype).removeprefix("torch."),
        )

    def _report(self, total: Loss, norm: Tensor, rate: float) -> None:
        means = {name: _finite(mean) for name, mean in total.means().items()}
        self.log.tell(
            "step",
            step=self.standing.step,
            **means,
            rate=rate * self.settings.optimizer.rate,
            norm=_finite(float(norm)),
            tokens=self.standing.tokens,
            refused=self.standing.refused,
            tokens_per_second=self.meter.tokens_per_second,
            peak_share=self.meter.peak_share,
            memory=memory_used(self.device),
            seconds_left=self.meter.seconds * (self.settings.steps - self.standing.step),
        )

    def _look_around(self) -> None:
        """Validate, sample and save, each when it is due."""
        step, last = self.standing.step, self.standing.step == self.settings.steps
        often = max(self.settings.steps // 20, 1)
        if self.validation is not None and (
            last or step % (self.settings.validate_every or often) == 0
        ):
            self._validated(self.validate())
        every = self.settings.sample_every or self.settings.validate_every or often
        if self.settings.samples and (last or step % every == 0):
            self._sample()
        if self.ranks.decided(self._saving_is_due(), self.device):
            self.save()
        self.leaving = self.ranks.any(self.stopping, self.device)

    def _validated(self, means: dict[str, float]) -> None:
        standing = self.standing
        self.log.tell("validation", step=standing.step, **means)
        standing.since_best += 1
        if means["loss"] < standing.best:
            standing.best, standing.since_best = means["loss"], 0
            if self.settings.patience is not None:
                self.save_model()
        elif standing.since_best == self.settings.patience:
            self.log.tell("early stop", step=standing.step, best=standing.best)
            standing.stopped_early = True

    def _sample(self) -> None:
        assert self.tokenizer is not None
        with self._averaged():
            whole = self.ranks.whole(self.network)
            assert isinstance(whole, Decoder)
            texts = write_samples(whole, self.tokenizer, self.settings) if self.ranks.first else []
        self.log.tell("samples", step=self.standing.step, samples=texts)

    def _saving_is_due(self) -> bool:
        if self.settings.save_every is not None:
            return self.standing.step % self.settings.save_every == 0
        return time.perf_counter() - self._saved_at > self._saving_took / SAVING_SHARE

    def _end(self) -> None:
        self.save()
        validated = math.isfinite(self.standing.best)
        if self.done and not (validated and self.settings.patience is not None):
            self.save_model()
        self.log.tell("end", step=self.standing.step, finished=self.done)
        if self.ranks.first:
            draw_curves(self.log.path, self.folder / CURVES)

    # What surrounds it

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def precision(self) -> AbstractContextManager[object]:
        """What losses are worked out in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied()

    def _stop(self) -> None:
        self.stopping = True


def _finite(number: float) -> float | None:
    """JSON knows no infinity."""
    return number if math.isfinite(number) else None
