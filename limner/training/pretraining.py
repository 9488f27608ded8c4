"""From the settings of a pre-training run to its trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from limner.checkpoints.checkpoint import open_checkpoint
from limner.config import nearest
from limner.data.batches import Batch, batches
from limner.data.corpus import Corpus, lengths, open_corpus
from limner.data.mixing import Mixture, Stream, shares
from limner.data.rows import PackedRows, PaddedRows, Rows, RowStream, in_order
from limner.models.families import find_family
from limner.models.network import Network, NetworkConfig
from limner.models.presets import PRESETS
from limner.objectives.contrastive import ContrastivePairs
from limner.tokenizers import Tokenizer, load_tokenizer
from limner.training.dial import Derived, derive
from limner.training.events import Listener
from limner.training.goals import Goal, make_objective, require_fit
from limner.training.parallel import Ranks, joined, local_device
from limner.training.settings import TrainingSettings
from limner.training.trainer import Trainer


class PretrainSettings(TrainingSettings):
    """What is trained, on what, and how."""

    data: str | list[str]
    """folders that `limner data prepare` made; several are mixed"""
    folder: Path
    """gets the log, the checkpoints and the model; a run that stopped goes on from there"""
    depth: int | None = Field(default=None, ge=1)
    """layers of a Llama; width, heads, length, rows, steps and rate follow from it, where they are
    not given, and are printed"""
    model: str | dict[str, Any] | None = None
    """the fields of a config.json, or the name of a published shape, or a model's folder to go on
    from; the vocabulary is the tokenizer's"""
    deviation: float = Field(default=0.02, gt=0)
    """standard deviation of a new model's random weights; narrow ones learn sooner with more"""
    tokens: int | None = Field(default=None, ge=1)
    """with depth: tokens to see, in place of 20 a parameter"""
    length: int | None = Field(default=None, ge=1)
    """tokens of a row; not given: the model's context, at most 1024"""
    packing: Literal["packed", "padded"] | None = None
    """packed: documents end to end, blind to one another; padded: one a row; not given: as the
    objective wants it"""
    weights: list[float] | None = None
    """how much of the mixture each folder of data is; not given: as much as its size"""
    temperature: float = Field(default=1.0, gt=0)
    """above 1 brings small folders of a mixture up: sizes count to the power 1 / temperature"""
    validation: float = Field(default=0.01, gt=0, lt=1)
    """the last share of each folder of data, which is not trained on"""
    validation_data: str | None = None
    """a folder to validate on, in place of that share"""
    objective: Goal = Goal()
    """what is learnt"""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto is the GPU if there is one"""

    @property
    def folders(self) -> list[Path]:
        """The folders of data."""
        return [Path(name) for name in ([self.data] if isinstance(self.data, str) else self.data)]


@dataclass(frozen=True)
class Corpora:
    """What is trained on and what is validated on, with the bytes that a validated token is."""

    train: list[Corpus]
    validation: list[Corpus]
    bytes_per_token: float
    tokenizer: Tokenizer


def assemble(
    settings: PretrainSettings,
    listeners: tuple[Listener, ...] = (),
    ranks: Ranks | None = None,
) -> tuple[Trainer, Derived | None]:
    """The trainer of a run, and what was derived from its depth, if that is given.

    Raises FileNotFoundError or ValueError with one line that says what to change.
    """
    corpora = open_corpora(settings)
    settings, derived = complete(settings, corpora.tokenizer)
    network = make_network(settings, corpora.tokenizer)
    require_fit(settings.objective, network)
    length = row_length(settings, network)
    objective = make_objective(settings.objective, network, corpora.tokenizer, settings.seed)
    if isinstance(objective, ContrastivePairs):
        require_pairs(settings, corpora, len(objective.images.paths), length)
    _place(settings.device, network, objective)
    trainer = Trainer(
        network,
        objective,
        make_stream(settings, corpora.train, length),
        settings.folder,
        settings,
        tokenizer=corpora.tokenizer,
        validation=partial(validation_batches, settings, corpora.validation, length),
        # Other losses are not of every token, so they say nothing of bytes.
        bytes_per_token=corpora.bytes_per_token
        if settings.objective.kind == "next_token"
        else None,
        listeners=listeners,
        ranks=ranks,
    )
    return trainer, derived


@contextmanager
def begun(settings: PretrainSettings, listener: Listener) -> Iterator[Trainer]:
    """The trainer of a run as one of its processes has it, which are joined so long.

    The listener is told what was derived from the depth, too, as the event "derived".

    Raises what `assemble` and `joined` raise.
    """
    with joined(settings.parallel, run_device(settings.device)) as ranks:
        trainer, derived = assemble(settings, (listener,), ranks)
        if derived is not None and ranks.first:
            listener({"event": "derived", "lines": list(derived.lines())})
        yield trainer


def open_corpora(settings: PretrainSettings) -> Corpora:
    """Open and split the data; ValueError if a folder is of another tokenizer than the first."""
    tokenizer = load_tokenizer(settings.folders[0])
    opened = [open_corpus(folder, tokenizer) for folder in settings.folders]
    whole = [corpus for corpus, _ in opened]
    manifests = [manifest for _, manifest in opened]
    if settings.validation_data is not None:
        apart, manifest = open_corpus(Path(settings.validation_data), tokenizer)
        train, validation, manifests = whole, [apart], [manifest]
    else:
        parts = [corpus.split(settings.validation) for corpus in whole]
        train, validation = ([part[side] for part in parts] for side in (0, 1))
    tokens, text = (sum(getattr(m, name) for m in manifests) for name in ("tokens", "text_bytes"))
    return Corpora(train, validation, text / tokens, tokenizer)


def complete(
    settings: PretrainSettings, tokenizer: Tokenizer
) -> tuple[PretrainSettings, Derived | None]:
    """The settings with all that follows from the depth, if that is given."""
    if settings.depth is None:
        if settings.tokens is not None:
            raise ValueError(f"tokens={settings.tokens} needs depth: give steps instead")
        return settings, None
    if isinstance(settings.model, str):
        raise ValueError(
            f"depth={settings.depth} makes a new model and model={settings.model} names another: "
            "give one of the two"
        )
    wanted = settings.model_fields_set
    given: dict[str, Any] = {n: getattr(settings, n) for n in ("rows", "steps") if n in wanted}
    given |= {n: v for n in ("length", "tokens") if (v := getattr(settings, n)) is not None}
    if "rate" in settings.optimizer.model_fields_set:
        given["rate"] = settings.optimizer.rate
    derived = derive(settings.depth, known_fields(tokenizer) | (settings.model or {}), given)
    changes = {
        "model": derived.model,
        "length": derived.length,
        "rows": derived.rows,
        "steps": derived.steps,
        "optimizer": settings.optimizer.model_copy(update={"rate": derived.rate}),
    }
    return settings.model_copy(update=changes), derived


def known_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer says of the model's config.json."""
    fields = {
        "vocab_size": tokenizer.vocabulary_size,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def make_network(settings: PretrainSettings, tokenizer: Tokenizer) -> Network:
    """A new network with random weights, or the one to go on from."""
    if (folder := given_model(settings)) is not None:
        return open_checkpoint(folder).network()
    network = network_config(settings, tokenizer).build()
    network.initialise(settings.deviation, torch.Generator().manual_seed(settings.seed))
    return network


def given_model(settings: PretrainSettings) -> Path | None:
    """The folder or file of the model to go on from, if there is one."""
    model = settings.model
    return Path(model) if isinstance(model, str) and Path(model).exists() else None


def network_config(settings: PretrainSettings, tokenizer: Tokenizer) -> NetworkConfig:
    """The shape of the network; ValueError if the settings do not say it."""
    if (folder := given_model(settings)) is not None:
        return open_checkpoint(folder).config
    model, known = settings.model, known_fields(tokenizer)
    if model is None:
        raise ValueError("no model: give depth=4, or model.model_type=... and its other fields")
    if isinstance(model, str) and model not in PRESETS:
        raise ValueError(
            f"no model '{model}': neither a folder nor a shape{nearest(model, PRESETS)}"
        )
    fields = PRESETS[model] if isinstance(model, str) else model
    if "text_config" in fields:  # a model of more than texts says there what concerns them
        return read_fields({**fields, "text_config": {**fields["text_config"], **known}})
    return read_fields({**fields, **known})


def read_fields(fields: Mapping[str, Any]) -> NetworkConfig:
    """The config of these fields of a config.json; ValueError names one that is missing."""
    fields = {"model_type": "llama"} | dict(fields)
    try:
        return find_family(fields["model_type"]).read_config(fields)
    except KeyError as missing:
        raise ValueError(f"model.{missing.args[0]}: missing: it has no default") from None


def row_length(settings: PretrainSettings, network: Network) -> int:
    """Tokens of a row; ValueError if the network was not made for so many."""
    context = network.config.context
    if settings.length is None:
        return min(context, 1024)
    if settings.length > context:
        raise ValueError(
            f"length={settings.length} is more than the model's context of {context} tokens: "
            "shorten the rows, or give the model a longer context"
        )
    return settings.length


def require_pairs(settings: PretrainSettings, corpora: Corpora, images: int, length: int) -> None:
    """ValueError if texts and images are not the same many, or could not be told apart."""
    if len(settings.folders) > 1 or settings.validation_data is not None:
        raise ValueError("objective.kind=contrastive knows images by one folder's texts: give one")
    if settings.micro_rows is not None:
        raise ValueError(
            "objective.kind=contrastive compares all rows of a step with one another, so they "
            "cannot be computed apart: leave micro_rows out, and let more processes share them"
        )
    (whole,) = corpora.train
    if len(whole.ends) != images:
        raise ValueError(
            f"'{settings.objective.images}' names {images} images but the data has "
            f"{len(whole.ends)} texts: prepare the data from that file, with nothing left out"
        )
    longest = max(lengths(whole) + lengths(corpora.validation[0]))
    if longest > length:
        raise ValueError(
            f"a text has {longest} tokens and a row {length}: raise length, or shorten the texts"
        )


def make_stream(settings: PretrainSettings, corpora: list[Corpus], length: int) -> Stream:
    """The rows to train on."""
    streams = [
        RowStream(rows_of(settings, corpus, length), settings.seed + number)
        for number, corpus in enumerate(corpora)
    ]
    if len(streams) == 1:
        return streams[0]
    sizes = settings.weights or [float(len(corpus)) for corpus in corpora]
    return Mixture(streams, shares(sizes, settings.temperature), settings.seed)


def rows_of(settings: PretrainSettings, corpus: Corpus, length: int) -> Rows:
    """The corpus in rows."""
    if (settings.packing or settings.objective.packing) == "packed":
        return PackedRows(corpus, length)
    return PaddedRows(corpus, length)


def validation_batches(
    settings: PretrainSettings, corpora: list[Corpus], length: int
) -> Iterable[Batch]:
    """Every row of the validation data, with the same noise each time."""
    size = settings.micro_rows or settings.rows
    for corpus in corpora:
        yield from batches(in_order(rows_of(settings, corpus, length)), size)


def _place(device: str, network: Network, objective: object) -> None:
    place = run_device(device)
    network.to(place)
    if isinstance(objective, nn.Module):
        objective.to(place)


def run_device(name: str) -> torch.device:
    """The device of a setting, for this process."""
    from limner.language_model.loading import choose_device

    return choose_device(local_device(name))
