"""All checks of a run, the cheap and the fatal ones first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from limner.data.batches import Batch
from limner.data.contamination import evaluation_texts
from limner.language_model.loading import choose_device
from limner.language_model.memory import free_bytes
from limner.models.counting import count_parameters, on_meta
from limner.training.doctor import learning, resources, texts
from limner.training.doctor.report import Check
from limner.training.pretraining import (
    Corpora,
    PretrainSettings,
    assemble,
    complete,
    given_model,
    network_config,
    open_corpora,
)
from limner.training.trainer import Trainer


@dataclass(frozen=True)
class Limits:
    """What a run may take: a price an hour, hours, money; and texts that it must not see."""

    price: float | None = None
    hours: float | None = None
    budget: float | None = None
    against: tuple[str, ...] = ()
    run_length: int = 13


def diagnose(settings: PretrainSettings, limits: Limits) -> Iterator[Check]:
    """Every check of a run with these settings. Nothing is written.

    Checks that a run too large for the memory would not survive are left out then. Raises
    FileNotFoundError or ValueError as the run would, where it could not even begin.
    """
    corpora = open_corpora(settings)
    settings, _ = complete(settings, corpora.tokenizer)
    shape = on_meta(network_config(settings, corpora.tokenizer))
    least = resources.memory_of(shape, settings, 0)
    yield Check("model", "OK", f"{count_parameters(shape):,} parameters")
    device = choose_device(settings.device)
    if least.total > free_bytes(device):
        yield resources.check_memory(least, device)
        yield resources.check_disk(least, settings, settings.folder)
        return
    trainer, _ = assemble(settings)
    rows = texts.some_rows(trainer.stream)
    yield from data_checks(trainer, corpora, rows, limits)
    yield from network_checks(trainer, settings, corpora, rows)
    yield from resource_checks(trainer, settings, rows, limits)


def data_checks(trainer: Trainer, corpora: Corpora, rows: Batch, limits: Limits) -> Iterator[Check]:
    """What is learnt from."""
    documents = texts.some_documents(corpora.train)
    yield texts.check_end(documents, rows, trainer.network, corpora.tokenizer)
    yield texts.check_beginning(documents, corpora.tokenizer)
    yield texts.check_inside(documents, corpora.tokenizer)
    yield texts.check_mask(rows, trainer.objective, trainer.network)
    tokens = trainer.settings.steps * trainer.settings.rows * int(rows.mask.sum()) // len(rows)
    yield texts.check_epochs(tokens, corpora.train)
    if limits.against:
        evaluation = evaluation_texts(limits.against)
        yield texts.check_contamination(
            corpora.train, evaluation, corpora.tokenizer, limits.run_length
        )


def network_checks(
    trainer: Trainer, settings: PretrainSettings, corpora: Corpora, rows: Batch
) -> Iterator[Check]:
    """What learns."""
    yield learning.check_tokenizer(given_model(settings), corpora.tokenizer, trainer.network)
    yield learning.check_template(corpora.tokenizer)
    yield learning.check_packing(trainer.network, rows)
    if given_model(settings) is None:
        yield learning.check_first_loss(trainer, rows, settings.objective.kind)


def resource_checks(
    trainer: Trainer, settings: PretrainSettings, rows: Batch, limits: Limits
) -> Iterator[Check]:
    """What it takes; the time only if the memory suffices."""
    activations = resources.activation_bytes(trainer, rows)
    memory = resources.memory_of(trainer.trained, settings, activations)
    checked = resources.check_memory(memory, trainer.device)
    yield checked
    yield resources.check_disk(memory, settings, settings.folder)
    if checked.level == "FAIL":
        return
    step, validation = resources.trial(trainer)
    hours = resources.whole_hours(settings, step, validation)
    yield resources.check_hours(hours, step, limits.hours)
    yield from resources.check_cost(hours, limits.price, limits.budget)
