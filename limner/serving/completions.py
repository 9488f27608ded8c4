"""Completions: texts or token ids in, and answers in the shape of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from limner.inference.admission import check_prompt
from limner.inference.sequence import Event
from limner.language_model import LanguageModel
from limner.serving.answering import Json, Written, reason, scores_of
from limner.serving.engine_thread import Submission
from limner.serving.forms import constraint_of
from limner.serving.infill import ends, infill
from limner.serving.requests import CompletionRequest
from limner.serving.token_scores import CompletionScores, Score
from limner.tokenizers import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """What is to be continued."""

    text: str
    tokens: list[int]


def prompts(model: LanguageModel, body: CompletionRequest) -> list[Prompt]:
    """The prompts of a request as text and token ids. Raises ValueError."""
    vocabulary = model.config.vocabulary
    given: list[Prompt] = []
    for prompt in body.prompt:
        if body.suffix:
            given.append(Prompt("", infill(model.tokenizer, prompt, body.suffix)))
        elif isinstance(prompt, str):
            given.append(Prompt(prompt, model.encode(prompt)))
        else:
            tokens = check_prompt(prompt, vocabulary)
            given.append(Prompt(model.tokenizer.decode(tokens), tokens))
    most = body.truncate_prompt_tokens
    return given if most is None else [_shortened(model, prompt, most) for prompt in given]


def _shortened(model: LanguageModel, prompt: Prompt, most: int) -> Prompt:
    """A prompt without its beginning, so that it has at most `most` tokens."""
    if len(prompt.tokens) <= most:
        return prompt
    tokens = prompt.tokens[-most:]
    return Prompt(model.tokenizer.decode(tokens), tokens)


def submissions(
    model: LanguageModel, body: CompletionRequest, given: Sequence[Prompt]
) -> list[Submission]:
    """What is to be generated: the answers to the first prompt, then to the second ..."""
    sampling, form = model.sampling(**body.options()), body.form()
    if body.suffix:
        stops = (*sampling.stop_tokens, *ends(model.tokenizer))
        sampling = replace(sampling, stop_tokens=stops)
    return [
        Submission(
            prompt.tokens,
            sampling,
            sample,
            constraint=constraint_of(model, form, body.form_field, sampling),
        )
        for prompt in given
        for sample in range(body.answers)
    ]


class CompletionShape:
    """Choices of a text completion.

    Args:
        body: the request.
        given: its prompts.
        prompt_scores: the scores of each prompt's tokens, if they are echoed with logprobs.
        tokenizer: the model's.
    """

    def __init__(
        self,
        body: CompletionRequest,
        given: Sequence[Prompt],
        prompt_scores: Sequence[Sequence[Score]],
        tokenizer: Tokenizer,
    ) -> None:
        self.body, self.given, self.prompt_scores = body, given, prompt_scores
        self.prompt_tokens = sum(len(prompt.tokens) for prompt in given)
        self.count = len(given) * body.answers
        self._scores = [CompletionScores(tokenizer) for _ in range(self.count)]

    def opening(self) -> Iterator[Json]:
        """The prompts, if they are to be echoed."""
        if self.body.echo:
            for index in range(self.count):
                place = index // self.body.answers
                scores = self.prompt_scores[place] if self.prompt_scores else ()
                yield self._choice(index, self.given[place].text, scores)

    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        """The text and the end."""
        scores = scores_of(event)
        if event.text or event.finish_reason or (scores and self._wants_scores):
            choice = self._choice(index, event.text, scores)
            yield choice | {"finish_reason": reason(event.finish_reason)}

    def choices(self, written: Sequence[Written]) -> list[Json]:
        """The answers, for each prompt its best `n`."""
        chosen: list[Json] = []
        each, wanted = self.body.answers, self.body.n or 1
        for place, prompt in enumerate(self.given):
            group = range(place * each, (place + 1) * each)
            best = sorted(group, key=lambda index: -mean_logprob(written[index]))[:wanted]
            for index in best if each > wanted else group:
                chosen.append(self._whole(len(chosen), index, prompt, written[index]))
        return chosen

    def _whole(self, number: int, index: int, prompt: Prompt, answer: Written) -> Json:
        text = prompt.text + answer.text if self.body.echo else answer.text
        before = self.prompt_scores[index // self.body.answers] if self.prompt_scores else ()
        choice = self._choice(index, text, [*before, *answer.scores])
        return choice | {"index": number, "finish_reason": reason(answer.finish_reason)}

    @property
    def _wants_scores(self) -> bool:
        return self.body.logprobs is not None

    def _choice(self, index: int, text: str, scores: Sequence[Score]) -> Json:
        logprobs = self._scores[index].piece(scores) if self._wants_scores else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}


def mean_logprob(answer: Written) -> float:
    """The log-probability per token, by which OpenAI's best_of chooses."""
    logprobs = [score.logprob for score in answer.scores if score.logprob is not None]
    return sum(logprobs) / max(len(logprobs), 1)
