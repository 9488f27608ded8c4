"""Whether kernels on weights of few bits compute what plain PyTorch does on the same as floats.

    python -m benchmarks.agreement MODEL PROMPTS TEXT [--prompts 500] [--answer 8] [--tokens 4096]

MODEL is a folder or a .gguf file, PROMPTS a JSON list of objects with an `instruction`, TEXT what
perplexity is measured on. The plain path is PyTorch's own operators on the same weights as float32
(`weights="parameters"`). Two figures are taken on both paths:

- Answers: each prompt is answered by the engine, greedily and in company, with captured steps. The
  plain path then reads prompt and answer in one pass. For the ten best tokens of each step the
  log-probabilities are compared, and whether both have the same best token. Where not, the two
  best are printed as both paths see them: a tie, if they are nearer each other than the paths are.
- Perplexity of TEXT.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import limner
from limner.evaluation.perplexity import perplexity
from limner.language_model import Completion, LanguageModel
from limner.language_model.completion import TokenScore

#: Tokens whose log-probabilities are compared at each step.
BEST = 10
#: Texts that the plain path reads together, of about the same length.
TOGETHER = 25


@dataclass(frozen=True)
class Answer:
    """A prompt's tokens, and each token of its answer with the best that could have been."""

    prompt: list[int]
    scores: Sequence[TokenScore]

    @property
    def tokens(self) -> list[int]:
        """What is read to predict the answer."""
        return self.prompt + [score.id for score in self.scores[:-1]]


def main() -> None:
    given = parse()
    model = limner.load(given.model, activation_bits=given.activation_bits)
    plain = limner.load(given.model, weights="parameters")
    print(f"{given.model.name}, activations of {given.activation_bits} bits", flush=True)
    prompts = [item["instruction"] for item in json.loads(given.questions.read_text())]
    compare_answers(model, plain, prompts[: given.prompts], given.answer)
    compare_perplexity(model, plain, given.text.read_text(encoding="utf-8"), given.tokens)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("questions", metavar="PROMPTS", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--answer", type=int, default=8, help="tokens of each answer")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of TEXT")
    parser.add_argument("--activation-bits", type=int, choices=(8, 16), default=16)
    return parser.parse_args()


def compare_answers(
    model: LanguageModel, plain: LanguageModel, prompts: Sequence[str], length: int
) -> None:
    """Print how far the engine's log-probabilities are from those of the plain path."""
    completions = model.generate(prompts, max_tokens=length, temperature=0.0, logprobs=BEST)
    answers = [answer(model, *pair) for pair in zip(prompts, completions, strict=True)]
    steps = list(differences(plain, answers))
    apart = torch.cat([step.apart for step in steps])
    unlike = [step for step in steps if step.unlike]
    same = 1 - len(unlike) / len(steps)
    print(
        f"{len(answers)} answers of {len(steps)} tokens: log-probabilities of the {BEST} best "
        f"differ by {apart.mean():.2g} on average and {apart.max():.2g} at most; the best token is "
        f"the same in {same:.2%}",
        flush=True,
    )
    for step in unlike:
        print("  " + "; ".join(step.unlike), flush=True)


@dataclass(frozen=True)
class Step:
    """How far the best log-probabilities of a token lie apart on the two paths.

    `unlike` is a line for each of the engine's two best tokens, if the paths have different bests.
    """

    apart: torch.Tensor
    unlike: Sequence[str] = ()


def answer(model: LanguageModel, prompt: str, completion: Completion) -> Answer:
    assert completion.logprobs is not None
    return Answer(model.encode(prompt), completion.logprobs)


@torch.inference_mode()
def differences(plain: LanguageModel, answers: Sequence[Answer]) -> Iterator[Step]:
    """Each token of each answer."""
    ordered = sorted(answers, key=lambda given: len(given.tokens))
    for group in (ordered[i : i + TOGETHER] for i in range(0, len(ordered), TOGETHER)):
        rows = torch.zeros(len(group), len(group[-1].tokens), dtype=torch.int64)
        for row, given in zip(rows, group, strict=True):
            row[: len(given.tokens)] = torch.tensor(given.tokens)  # what follows cannot be seen
        logits = plain.network.logits(rows)  # (B, T, V)
        for own, given in zip(logits, group, strict=True):
            start = len(given.prompt) - 1
            for place, score in enumerate(given.scores, start):
                ids, found = zip(*score.alternatives, strict=True)
                scores = own[place].log_softmax(0)
                apart = (scores[list(ids)] - torch.tensor(found)).abs()
                same = bool(scores.argmax() == ids[0])
                yield Step(apart, () if same else both_best(plain, score, scores))


def both_best(plain: LanguageModel, score: TokenScore, scores: torch.Tensor) -> list[str]:
    """The engine's two best tokens and the plain path's best, as both paths see them.

    `scores` (V,) are the plain path's log-probabilities.
    """
    found = dict(score.alternatives)
    best = [*list(found)[:2], int(scores.argmax())]
    return [
        f"{plain.tokenizer.decode([token])!r} {found[token]:.5f} with kernels, "
        f"{scores[token]:.5f} without"
        for token in dict.fromkeys(best)
        if token in found
    ]


def compare_perplexity(model: LanguageModel, plain: LanguageModel, text: str, tokens: int) -> None:
    """Print the perplexity of a text on both paths."""
    ours, theirs = (
        perplexity(each.network, each.tokenizer, text, limit=tokens) for each in (model, plain)
    )
    print(
        f"perplexity on {ours.tokens:,} tokens: {ours.perplexity:.5f} with kernels, "
        f"{theirs.perplexity:.5f} without ({ours.perplexity / theirs.perplexity - 1:+.4%})",
        flush=True,
    )


if __name__ == "__main__":
    main()
