"""What guessing ahead brings: guesses that were right, and speed, in turns with none.

    python -m benchmarks.speculation
    python -m benchmarks.speculation --draft PATH --temperature 0.8 --rounds 5

The task is to copy paragraphs of this project's documentation, and to write stories. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import limner
from limner.language_model import LanguageModel

DOCS = Path(__file__).parents[1] / "docs"
STORIES = ("Write a story about a lighthouse keeper.", "Write a story about a fox and a crow.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--draft", default="lookup")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    plain = limner.load(options.model)
    guessing = limner.load(options.model, draft=options.draft)
    ratios = {name: measure(name, task, plain, guessing, options) for name, task in tasks().items()}
    print(json.dumps({"benchmark": "speculation", "draft": options.draft, "speed-up": ratios}))


def tasks() -> dict[str, list[str]]:
    """What is asked, by the kind of task."""
    lines = (DOCS / "inference.md").read_text(encoding="utf-8").split("\n\n")
    paragraphs = [line for line in lines if 300 < len(line) < 700 and line[0].isalpha()][:2]
    return {"copy": [f"Copy this text:\n\n{text}" for text in paragraphs], "story": list(STORIES)}


def measure(
    name: str,
    prompts: list[str],
    plain: LanguageModel,
    guessing: LanguageModel,
    options: argparse.Namespace,
) -> float:
    """The ratio of speeds; prints what was seen."""
    before = guessing.engine.statistics
    sides = {"plain": plain, "guessing": guessing}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(options.rounds + 1):
        texts = []
        for side, model in sides.items():
            started = time.perf_counter()
            texts.append([answer(model, prompt, options) for prompt in prompts])
            if turn:  # the first is to warm up
                taken[side].append(time.perf_counter() - started)
        assert texts[0] == texts[1], "guessing changed an answer"
    after = guessing.engine.statistics
    guessed, right = after.proposed - before.proposed, after.accepted - before.accepted
    ratio = statistics.median(taken["plain"]) / statistics.median(taken["guessing"])
    share = right / max(guessed, 1)
    print(f"{name:8} guessed {guessed}, right {share:.0%}, {ratio:.2f} times as fast")
    return ratio


def answer(model: LanguageModel, prompt: str, options: argparse.Namespace) -> str:
    messages = [{"role": "user", "content": prompt}]
    chosen = {"temperature": options.temperature, "seed": 1, "max_tokens": options.tokens}
    return model.chat(messages, **chosen).text


if __name__ == "__main__":
    main()
