"""From settings to an objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import open_checkpoint
from limner.config import Settings
from limner.data.images import ImageConfig, ImageFiles, images_of_captions
from limner.models.contrastive import Contrastive
from limner.models.decoder import Decoder
from limner.models.encoder import Encoder
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.families import find_family
from limner.models.network import Network
from limner.nn.fronts import PatchesConfig
from limner.objectives.contrastive import ContrastivePairs
from limner.objectives.denoising import Denoising, Noise
from limner.objectives.distillation import Distillation
from limner.objectives.loss import Objective
from limner.objectives.masked import MaskedTokens
from limner.objectives.next_token import NextToken
from limner.objectives.prefix import PrefixLanguageModel
from limner.objectives.replaced import ReplacedTokens
from limner.objectives.span_corruption import SpanCorruption
from limner.objectives.tokens_ahead import TokensAhead
from limner.tokenizers import Tokenizer

Kind = Literal[
    "next_token",
    "tokens_ahead",
    "prefix",
    "distillation",
    "masked",
    "replaced",
    "span_corruption",
    "denoising",
    "contrastive",
]
FITS: dict[type[Network], tuple[Kind, ...]] = {
    Decoder: ("next_token", "tokens_ahead", "prefix", "distillation"),
    Encoder: ("masked", "replaced"),
    EncoderDecoder: ("span_corruption", "denoising"),
    Contrastive: ("contrastive",),
}
#: Objectives of which a share can be set.
SHARING: tuple[Kind, ...] = ("masked", "replaced", "span_corruption", "denoising", "distillation")


class Goal(Settings):
    """What is learnt."""

    kind: Kind = "next_token"
    """decoders: next_token, tokens_ahead, prefix, distillation; encoders: masked, replaced;
    encoder-decoders: span_corruption, denoising; models of texts and images: contrastive"""
    share: float | None = Field(default=None, gt=0, lt=1)
    """how much is noised, or how much of the loss is the teacher's; not given: as in the paper"""
    mean_length: float | None = Field(default=None, ge=1)
    """span_corruption, and infill of denoising: tokens of a missing span on average; not given: 3,
    as in the papers"""
    noises: tuple[Noise, ...] = ("permute", "infill")
    """denoising: which, in this order: permute, rotate, infill, delete, mask"""
    teacher: str | None = None
    """distillation: the model to learn from"""
    temperature: float = Field(default=2.0, gt=0)
    """distillation: softens both models' probabilities"""
    generator: dict[str, Any] = Field(default_factory=dict)
    """replaced: fields of the generator's config.json that differ from the model's"""
    images: Path | None = None
    """contrastive: the JSON lines that the data was prepared from, each with its "image\""""
    balance: float = Field(default=0.0, ge=0)
    """next_token: weight of the loss that evens out the load of experts"""

    @model_validator(mode="after")
    def _has_use_for_all(self) -> Self:
        if self.share is not None and self.kind not in SHARING:
            raise ValueError(
                f"share={self.share:g} is for kind={', '.join(SHARING)}: "
                f"leave it out of kind={self.kind}"
            )
        infills = self.kind == "denoising" and "infill" in self.noises
        if self.mean_length is not None and self.kind != "span_corruption" and not infills:
            raise ValueError(
                f"mean_length={self.mean_length:g} is for kind=span_corruption, and for "
                f"kind=denoising with infill among its noises: leave it out of kind={self.kind}"
            )
        return self

    @property
    def packing(self) -> Literal["packed", "padded"]:
        """What the objective wants: some read a text as a whole."""
        whole = FITS[EncoderDecoder] + FITS[Contrastive]
        return "padded" if self.kind in whole else "packed"

    def options(self) -> dict[str, Any]:
        """The share and the mean length, those that are given."""
        given = {"share": self.share, "mean_length": self.mean_length}
        return {name: value for name, value in given.items() if value is not None}


def require_fit(goal: Goal, network: Network) -> None:
    """ValueError if the objective is not for such a network."""
    fitting = FITS.get(type(network), ())
    if goal.kind not in fitting:
        raise ValueError(
            f"objective.kind={goal.kind} does not fit this {network.config.family} model: "
            f"{' or '.join(fitting) or 'no objective'} would"
        )


def make_objective(goal: Goal, network: Network, tokenizer: Tokenizer, seed: int) -> Objective:
    """The objective of these settings; ValueError if something is missing."""
    match goal.kind:
        case "next_token":
            return NextToken(goal.balance)
        case "tokens_ahead":
            return TokensAhead()
        case "prefix":
            return PrefixLanguageModel()
        case "masked":
            return MaskedTokens(tokenizer, **goal.options())
        case "span_corruption":
            return SpanCorruption(tokenizer, **goal.options())
        case "denoising":
            return Denoising(tokenizer, goal.noises, **goal.options())
        case "distillation":
            return distillation(goal)
        case "replaced":
            return replaced(goal, network, tokenizer, seed)
        case "contrastive":
            return contrastive(goal, network)


def distillation(goal: Goal) -> Distillation:
    """Learning from the teacher of the settings."""
    if goal.teacher is None:
        raise ValueError("objective.teacher: missing: distillation needs a model to learn from")
    teacher = open_checkpoint(resolve(goal.teacher)).network()
    if not isinstance(teacher, Decoder):
        raise ValueError(f"objective.teacher: '{goal.teacher}' is no decoder")
    return Distillation(teacher, goal.temperature, **goal.options())


def replaced(goal: Goal, network: Network, tokenizer: Tokenizer, seed: int) -> ReplacedTokens:
    """A generator of the network's shape but for the given fields, and the detection beside it."""
    family = find_family(network.config.family)
    fields = family.write_config(network.config) | {"architectures": ["ElectraForMaskedLM"]}
    generator = family.read_config(fields | goal.generator).build()
    assert isinstance(generator, Encoder)
    assert isinstance(network, Encoder)
    generator.initialise(generator=torch.Generator().manual_seed(seed + 1))
    objective = ReplacedTokens(generator, tokenizer, **goal.options())
    objective.share_embeddings(network)
    return objective


def contrastive(goal: Goal, network: Network) -> ContrastivePairs:
    """Pairs with the images of the settings, each brought to the network's size."""
    if goal.images is None:
        raise ValueError(
            "objective.images: missing: name the JSON lines that the data was prepared from, each "
            'with its "image"'
        )
    assert isinstance(network, Contrastive)
    front = network.config.image.front
    assert isinstance(front, PatchesConfig)
    size = (front.image, front.image)
    return ContrastivePairs(
        ImageFiles(images_of_captions(goal.images), ImageConfig(size=size, crop=size))
    )
