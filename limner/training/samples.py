"""What a model writes while it is trained."""

from __future__ import annotations

from limner.language_model import LanguageModel
from limner.models.decoder import Decoder
from limner.tokenizers import Tokenizer
from limner.training.settings import TrainingSettings

TEMPERATURE = 0.8


def check_samples(network: object, tokenizer: Tokenizer | None, settings: TrainingSettings) -> None:
    """ValueError now rather than hours later, if the samples of the settings cannot be written."""
    if not settings.samples:
        return
    if not isinstance(network, Decoder):
        raise ValueError("samples: only a decoder continues texts: leave them out")
    if tokenizer is None:
        raise ValueError("samples: they need a tokenizer: pass one, or leave them out")
    _room(LanguageModel("in training", network, tokenizer), settings)


def write_samples(
    network: Decoder, tokenizer: Tokenizer, settings: TrainingSettings
) -> list[dict[str, str]]:
    """The settings' beginnings, each with its continuation, by the engine that serves models."""
    model = LanguageModel("in training", network, tokenizer)
    answers = model.generate(
        list(settings.samples),
        max_tokens=min(settings.sample_tokens, _room(model, settings)),
        temperature=TEMPERATURE,
        seed=settings.seed,
    )
    return [
        {"prompt": prompt, "text": answer.text}
        for prompt, answer in zip(settings.samples, answers, strict=True)
    ]


def _room(model: LanguageModel, settings: TrainingSettings) -> int:
    """Tokens that fit behind the longest beginning; ValueError if none do."""
    longest = max(len(model.encode(text)) for text in settings.samples)
    if longest >= model.context:
        raise ValueError(
            f"samples: one has {longest} tokens and the model's context is {model.context}: "
            "shorten it"
        )
    return model.context - longest
