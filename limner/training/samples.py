"""What a model writes while it is trained."""

from __future__ import annotations

from limner.language_model import LanguageModel
from limner.models.decoder import Decoder
from limner.tokenizers import Tokenizer
from limner.training.settings import TrainingSettings

TEMPERATURE = 0.8


def write_samples(
    network: Decoder, tokenizer: Tokenizer, settings: TrainingSettings
) -> list[dict[str, str]]:
    """The settings' beginnings, each with its continuation, by the engine that serves models."""
    model = LanguageModel("in training", network, tokenizer)
    answers = model.generate(
        list(settings.samples),
        max_tokens=settings.sample_tokens,
        temperature=TEMPERATURE,
        seed=settings.seed,
    )
    return [
        {"prompt": prompt, "text": answer.text}
        for prompt, answer in zip(settings.samples, answers, strict=True)
    ]
