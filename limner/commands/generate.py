"""`limner generate`: answer a prompt, or continue a text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from limner.commands.answering import Answer, print_answer
from limner.commands.options import ModelSettings, SamplingSettings
from limner.commands.terminal import read_text, remark

if TYPE_CHECKING:
    from limner.language_model import LanguageModel, Stream


class Command(ModelSettings, SamplingSettings):
    """Answer a prompt, or continue a text.

    A model with a chat template answers the prompt as a message; --raw continues it as a text, as
    models without a template always do. The prompt is the second argument, or --file, or standard
    input. The answer goes to standard output as it is written.
    """

    positional: ClassVar[tuple[str, ...]] = ("model", "prompt")

    prompt: str | None = None
    """the question, or the text to continue"""
    file: Path | None = None
    """read the prompt from this file"""
    system: str | None = None
    """what the model is told before the prompt"""
    raw: bool = False
    """continue the prompt as a text, without the chat template"""
    stats: bool = False
    """say on standard error how many tokens came how fast"""


def run(settings: Command) -> None:
    """Stream the answer to standard output."""
    if settings.prompt is not None and settings.file is not None:
        raise ValueError("the prompt is given twice: as an argument and as --file")
    prompt = read_text(settings.prompt, settings.file, "prompt")
    options = settings.sampling()
    model = settings.load()
    started = time.perf_counter()
    answer = print_answer(begin(model, prompt, settings, options), settings.max_tokens)
    if answer.cut_off:
        remark(
            f"(cut off after {len(answer.completion.tokens)} tokens; --max-tokens sets how many)"
        )
    if settings.stats:
        remark(statistics(answer, started, time.perf_counter()))


def begin(model: LanguageModel, prompt: str, settings: Command, options: dict[str, Any]) -> Stream:
    """Start the answer, as a chat if the model can and the user wants it."""
    if settings.raw or model.tokenizer.chat_template is None:
        if settings.system is not None:
            raise ValueError("--system needs a chat: the prompt is continued as a plain text here")
        return model.stream(prompt, **options)
    system = [] if settings.system is None else [{"role": "system", "content": settings.system}]
    return model.stream_chat([*system, {"role": "user", "content": prompt}], **options)


def statistics(answer: Answer, started: float, ended: float) -> str:
    """How long the prompt and the answer took."""
    usage = answer.completion.usage
    begun = answer.first_text or ended
    speed = max(usage.completion_tokens - 1, 0) / max(ended - begun, 1e-9)
    return (
        f"prompt: {usage.prompt_tokens} tokens, answered after {begun - started:.2f} s; "
        f"answer: {usage.completion_tokens} tokens, {speed:.1f} tokens/s"
    )
