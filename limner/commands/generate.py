"""`limner generate`: answer a prompt, or continue a text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from limner.commands.answering import Answer, print_answer
from limner.commands.options import AdaptedSettings, SamplingSettings
from limner.commands.terminal import harmless, read_text, remark

if TYPE_CHECKING:
    from limner.language_model import Completion, LanguageModel, Stream


class Command(AdaptedSettings, SamplingSettings):
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
    json_schema: Path | None = None
    """answer in JSON that is valid under the JSON Schema in this file"""
    regex: str | None = None
    """answer with a text that matches this regular expression"""
    grammar: Path | None = None
    """answer with a text of the Lark grammar in this file"""
    choice: list[str] | None = None
    """answer with one of these texts; give it several times"""
    num_beams: int | None = None
    """search instead of drawing: follow so many beginnings at once, and take the best text"""
    length_penalty: float | None = None
    """with num_beams: above 0 favours long answers, below 0 short ones"""
    groups: int | None = None
    """with num_beams: share them among so many groups that keep away from one another's words"""
    diversity_penalty: float | None = None
    """with groups: how far they keep away; 0.5 if not given"""
    contrast: float | None = None
    """search among the top_k best tokens for what is least like the text so far; 0.6 is usual"""
    best_of: int | None = None
    """draw so many answers and take the one with the best mean log-probability"""
    stats: bool = False
    """say on standard error how many tokens came how fast"""


def run(settings: Command) -> None:
    """Stream the answer to standard output."""
    if settings.prompt is not None and settings.file is not None:
        raise ValueError("the prompt is given twice: as an argument and as --file")
    prompt = read_text(settings.prompt, settings.file, "prompt")
    options = settings.sampling() | form(settings)
    searching = search_options(settings)
    model = settings.load()
    if searching:
        print_found(model, prompt, settings, options | searching)
        return
    started = time.perf_counter()
    answer = print_answer(begin(model, prompt, settings, options), settings.max_tokens)
    if answer.cut_off:
        remark(cut_off(answer.completion))
    if settings.stats:
        remark(statistics(answer, started, time.perf_counter()))


def search_options(settings: Command) -> dict[str, Any]:
    """The options that ask for a search. Raises ValueError for one that needs another."""
    names = ("num_beams", "length_penalty", "groups", "diversity_penalty", "contrast", "best_of")
    given = {name: getattr(settings, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if given and settings.stats:
        raise ValueError("--stats is for answers that are drawn: leave it out of a search")
    return given


def print_found(
    model: LanguageModel, prompt: str, settings: Command, options: dict[str, Any]
) -> None:
    """Print the best of what a search finds."""
    try:
        question = asked(model, prompt, settings)
        found = model.search(question, adapter=settings.adapter_name, **options)
    except TypeError as error:  # an option of another kind of search
        raise ValueError(str(error)) from None
    print(harmless(found[0].text))
    if found[0].finish_reason == "length":
        remark(cut_off(found[0]))


def cut_off(answer: Completion) -> str:
    """What is said of an answer that did not come to its end."""
    return f"(cut off after {len(answer.tokens)} tokens; --max-tokens sets how many)"


def asked(model: LanguageModel, prompt: str, settings: Command) -> str | list[dict[str, str]]:
    """The messages of a chat if the model can and the user wants it, or else the text."""
    if settings.raw or model.tokenizer.chat_template is None:
        if settings.system is not None:
            raise ValueError("--system needs a chat: the prompt is continued as a plain text here")
        return prompt
    system = [] if settings.system is None else [{"role": "system", "content": settings.system}]
    return [*system, {"role": "user", "content": prompt}]


def form(settings: Command) -> dict[str, Any]:
    """The options that hold the answer to a form."""
    files = {"schema": settings.json_schema, "grammar": settings.grammar}
    given: dict[str, Any] = {"regex": settings.regex, "choice": settings.choice}
    given |= {name: path and path.read_text(encoding="utf-8") for name, path in files.items()}
    return {name: value for name, value in given.items() if value is not None}


def begin(model: LanguageModel, prompt: str, settings: Command, options: dict[str, Any]) -> Stream:
    """Start the answer, as a chat if the model can and the user wants it."""
    question, adapter = asked(model, prompt, settings), settings.adapter_name
    if isinstance(question, str):
        return model.stream(question, adapter=adapter, **options)
    return model.stream_chat(question, adapter=adapter, **options)


def statistics(answer: Answer, started: float, ended: float) -> str:
    """How long the prompt and the answer took."""
    usage = answer.completion.usage
    begun = answer.first_text or ended
    speed = max(usage.completion_tokens - 1, 0) / max(ended - begun, 1e-9)
    return (
        f"prompt: {usage.prompt_tokens} tokens, answered after {begun - started:.2f} s; "
        f"answer: {usage.completion_tokens} tokens, {speed:.1f} tokens/s"
    )
