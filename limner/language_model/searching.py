"""Texts found by searching: beams, contrast, or the best of several answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from limner.config import nearest
from limner.inference.constraints import KINDS as FORMS
from limner.inference.constraints import form_of
from limner.inference.sampling import Sampling
from limner.inference.search import Contrast, DiverseSettings, search_beams, search_contrast
from limner.inference.sequence import Sequence as Text
from limner.language_model.completion import Completion, Usage
from limner.language_model.stream import completion
from limner.tokenizers import IncrementalDecoder

if TYPE_CHECKING:
    from limner.language_model.model import LanguageModel

#: Tokens written at most if nobody says how many.
LONGEST = 256

#: Rates a text; the highest is best.
Scorer = Callable[[str], float]

BEAMS = {field.name for field in fields_of(DiverseSettings)}
CONTRAST = {"contrast", "top_k"}
BEST_OF = {"best_of", "scorer", *FORMS} | {field.name for field in fields_of(Sampling)}
#: Which option asks for which search, and what else goes with it.
KINDS = {"num_beams": BEAMS, "contrast": CONTRAST, "best_of": BEST_OF}


def search(
    model: LanguageModel,
    tokens: Sequence[int],
    options: Mapping[str, Any],
    adapter: str | None = None,
) -> list[Completion]:
    """What a search finds after a prompt, best first; `LanguageModel.search` says more."""
    kind = kind_of(options)
    if kind == "best_of":
        return best_of(model, tokens, options, adapter)
    with model.applied(adapter):
        return _follow(model, tokens, options, kind)


def _follow(
    model: LanguageModel, tokens: Sequence[int], options: Mapping[str, Any], kind: str
) -> list[Completion]:
    """What a search finds by following several branches."""
    most = room(model, tokens, options.get("max_tokens"))
    ends = model.tokenizer.stop_ids
    if kind == "contrast":
        settings = Contrast(options["contrast"], options.get("top_k", Contrast().top_k))
        text = search_contrast(model.network, tokens, settings, end_tokens=ends, max_tokens=most)
        return [_completed(model, text, len(tokens))]
    chosen = {name: value for name, value in options.items() if name in BEAMS}
    beams = search_beams(
        model.network, tokens, DiverseSettings(**chosen), end_tokens=ends, max_tokens=most
    )
    return [_completed(model, beam.tokens, len(tokens), beam.score) for beam in beams]


def kind_of(options: Mapping[str, Any]) -> str:
    """The option that says which search it is.

    Raises TypeError for an option that does not go with it, ValueError if there are two or none.
    """
    asked = [kind for kind in KINDS if kind in options]
    if len(asked) != 1:
        given = f"{' and '.join(asked)} exclude each other" if asked else "none was given"
        raise ValueError(f"a search needs one of {', '.join(KINDS)}: {given}")
    known = sorted(KINDS[asked[0]] | {"max_tokens"})
    for name in options:
        if name not in known:
            raise TypeError(f"{asked[0]} knows no option '{name}'{nearest(name, known)}")
    return asked[0]


def room(model: LanguageModel, tokens: Sequence[int], most: int | None) -> int:
    """How many tokens may be written. Raises ValueError if there is no room for them."""
    left = model.context - len(tokens)
    if left < (most or 1):
        raise ValueError(
            f"a prompt of {len(tokens)} tokens leaves room for {max(left, 0)} in a context of "
            f"{model.context}, not for {most or 1}"
        )
    if most is not None and most < 1:
        raise ValueError(f"max_tokens must be 1 or more, not {most}")
    return min(left, LONGEST) if most is None else most


def best_of(
    model: LanguageModel,
    tokens: Sequence[int],
    options: Mapping[str, Any],
    adapter: str | None = None,
) -> list[Completion]:
    """Several drawn answers to one prompt, which is computed once, best first.

    Raises what `LanguageModel.generate` raises, and ValueError for a number below 1.
    """
    count, scorer = options["best_of"], options.get("scorer")
    if count < 1:
        raise ValueError(f"best_of must be 1 or more answers, not {count}")
    chosen = {name: value for name, value in options.items() if name not in ("best_of", "scorer")}
    drawn = draw_several(model, tokens, {"logprobs": 0, **chosen}, count, adapter)
    answers = [completion(sequence, model.tokenizer) for sequence in drawn]
    rated = [replace(answer, score=_rate(answer, scorer)) for answer in answers]
    return sorted(rated, key=lambda answer: -(answer.score or 0.0))


def draw_several(
    model: LanguageModel,
    tokens: Sequence[int],
    options: Mapping[str, Any],
    count: int,
    adapter: str | None = None,
) -> list[Text]:
    """Several answers to one prompt."""
    form, others = form_of(options)
    sampling, engine = model.sampling(**others), model.engine
    if sampling.greedy and count > 1:
        raise ValueError(
            f"best_of={count} answers would all be the same at temperature 0: give a temperature"
        )
    drawn: list[Text] = []
    try:
        for sample in range(count):
            text = engine.submit(
                tokens,
                sampling,
                sample=sample,
                decoder=IncrementalDecoder(model.tokenizer),
                constraint=model.constraint(form),
                beside=drawn[0] if drawn else None,
                adapter=model.adapter(adapter),
            )
            drawn.append(text)
        while not all(text.finished for text in drawn):
            engine.step()
    finally:
        for text in drawn:
            engine.cancel(text)
    return drawn


def _rate(answer: Completion, scorer: Scorer | None) -> float:
    """What the scorer says, or the mean log-probability of the tokens."""
    if scorer is not None:
        return float(scorer(answer.text))
    assert answer.logprobs is not None
    return sum(token.logprob for token in answer.logprobs) / max(len(answer.logprobs), 1)


def _completed(
    model: LanguageModel, text: Sequence[int], given: int, score: float | None = None
) -> Completion:
    tokens = tuple(text[given:])
    ended = bool(tokens) and tokens[-1] in model.tokenizer.stop_ids
    decoder = IncrementalDecoder(model.tokenizer)
    pieces = [decoder.push(token) for token in (tokens[:-1] if ended else tokens)]
    return Completion(
        text="".join(pieces) + decoder.finish(),
        tokens=tokens,
        finish_reason="stop" if ended else "length",
        usage=Usage(given, len(tokens)),
        score=score,
    )
