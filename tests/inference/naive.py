"""Generation one sequence at a time, over the full prefix, written as plainly as possible."""

from dataclasses import dataclass

from limner.inference.sampler import draw
from tests.inference.fake import Letters
from tests.inference.rows import Row


@dataclass
class Answer:
    tokens: list[int]
    logprobs: list[float | None]
    text: str
    finish_reason: str


def naive_answer(
    next_logits, prompt, sampling, *, end_tokens=(), context, sample=0, allowed=None,
    new_constraint=lambda ends: None,
):  # fmt: skip
    """What an engine must answer; `next_logits` maps a prefix to the logits (V,) after it."""
    tokens, logprobs, decoder, text = list(prompt), [], Letters(), ""
    length = sampling.max_tokens or context - len(prompt)
    ends = {*sampling.stop_tokens, *(() if sampling.ignore_eos else end_tokens)}
    reason = ""
    while not reason:
        row = Row(
            sampling, tokens, len(prompt), sampling.seed, sample, allowed, new_constraint(ends)
        )
        (result,) = draw(next_logits(tokens)[None], [row])
        if result.token is None:
            reason = "error"
            break
        tokens = [*tokens, result.token]
        logprobs.append(result.logprob)
        if result.token in ends:
            reason = "stop"
            break
        text += decoder.push(result.token)
        if cut_at_stop(text, sampling.stop) is not None:
            reason = "stop"
        elif len(tokens) - len(prompt) == length:
            reason = "length"
    cut = cut_at_stop(text, sampling.stop)
    if cut is None:
        text += decoder.finish()
        cut = cut_at_stop(text, sampling.stop)
    return Answer(tokens[len(prompt) :], logprobs, text if cut is None else cut, reason)


def cut_at_stop(text, stops):
    """The text before the stop string that is complete first, reading letter by letter."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)]
    return None
