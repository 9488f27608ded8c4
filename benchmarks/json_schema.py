"""JSON Schemas with valid and invalid instances, followed token by token.

    python -m benchmarks.json_schema FOLDER
    python -m benchmarks.json_schema FOLDER --tokenizer smollm2-135m-instruct

FOLDER holds `maskbench` (the JSONL files of MaskBench, guidance-ai/jsonschemabench) and
`jsonschema_suite` (JSON-Schema-Test-Suite, drafts 7 and 2020-12). Each instance is written as JSON
and its tokens are tried one after another: it is accepted if every one is allowed and the answer
may end after the last. Without --tokenizer the tokens are those of a small vocabulary that is
trained here. Prints a table, the reasons of refusals, every disagreement, and the time a mask took.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limner.inference.constraints import Form, Grammars
from limner.tokenizers import Tokenizer

DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
Json = Any


@dataclass(frozen=True)
class Case:
    """A schema, and instances with whether they are valid."""

    name: str
    schema: Json
    instances: list[tuple[Json, bool]]


@dataclass
class Tally:
    """How a set of cases went."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)
    compiling: float = 0
    masking: float = 0
    masks: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the data lies")
    parser.add_argument("--tokenizer", help="a model whose tokenizer is used")
    options = parser.parse_args()
    tokenizer = chosen(options.tokenizer)
    grammars = Grammars(tokenizer, tokenizer.vocabulary_size)
    end = next(iter(tokenizer.stop_ids))
    tallies = {}
    for name, cases in all_cases(options.folder):
        tallies[name] = tally = Tally()
        for case in cases:
            examine(case, tokenizer, grammars, end, tally)
    show(tallies)


def chosen(name: str | None) -> Tokenizer:
    """The tokenizer of a model, or one that is made on the spot."""
    if name is not None:
        import limner

        return limner.load(name).tokenizer
    import tokenizers
    from tokenizers import decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    engine = tokenizers.Tokenizer(BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator([Path(json.__file__).read_text(encoding="utf-8")], trainer)
    return Tokenizer(engine, roles={"eos_token": "<end>"})


# What is tried


def all_cases(folder: Path) -> Iterator[tuple[str, Iterator[Case]]]:
    """The sets by name."""
    files = sorted((folder / "maskbench").glob("*.jsonl.gz"))
    if not files:
        raise SystemExit(f"error: {folder} holds no maskbench/*.jsonl.gz")
    for path in files:
        yield f"MaskBench {path.name.removesuffix('.jsonl.gz')}", maskbench(path)
    for draft in DRAFTS:
        yield f"JSON-Schema-Test-Suite {draft}", suite(folder / "jsonschema_suite/tests", draft)


def maskbench(path: Path) -> Iterator[Case]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            case = json.loads(line)
            tests = [(test["data"], test["valid"]) for test in case["tests"]]
            yield Case(case["id"], case["schema"], tests)


def suite(folder: Path, draft: str) -> Iterator[Case]:
    for path in sorted((folder / draft).glob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            schema = case["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": DRAFTS[draft], **schema}
            tests = [(test["data"], test["valid"]) for test in case["tests"]]
            yield Case(f"{path.stem}: {case['description']}", schema, tests)


# Trying it


def examine(case: Case, tokenizer: Tokenizer, grammars: Grammars, end: int, tally: Tally) -> None:
    """Try every instance of a case."""
    begun = time.perf_counter()
    try:
        form = Form.schema(case.schema)
        grammars.constraint(form)
    except ValueError as error:
        tally.counts["refused"] += 1
        tally.counts["refused instances"] += len(case.instances)
        tally.reasons[reason(str(error))] += 1
        return
    finally:
        tally.compiling += time.perf_counter() - begun
    tally.counts["followed"] += 1
    for instance, valid in case.instances:
        accepted = accepts(grammars, form, tokenizer, end, instance, tally)
        kind = "valid" if valid else "invalid"
        tally.counts[f"{kind} {'accepted' if accepted else 'refused'}"] += 1
        if accepted and not valid:
            tally.disagreements.append(f"ACCEPTED {case.name}: {shown(instance)}")
        if valid and not accepted:
            other = any(
                accepts(grammars, form, tokenizer, end, spelling, tally)
                for spelling in spellings(instance)
            )
            tally.counts["valid in another spelling"] += other
            word = "spelling" if other else "REFUSED"
            tally.disagreements.append(f"{word} {case.name}: {shown(instance)}")


def accepts(
    grammars: Grammars, form: Form, tokenizer: Tokenizer, end: int, instance: Json, tally: Tally
) -> bool:
    """Whether each token of an instance is allowed after those before it, and the end at last."""
    constraint = grammars.constraint(form)
    constraint.ends = (end,)
    text = json.dumps(instance, ensure_ascii=False)
    tokens = [*tokenizer.encode(text, add_special_tokens=False), end]
    for place, token in enumerate(tokens):
        begun = time.perf_counter()
        allowed = constraint.allowed(tokens[:place])
        tally.masking += time.perf_counter() - begun
        tally.masks += 1
        if not allowed[token]:
            return False
    return True


def spellings(instance: Json) -> Iterator[Json]:
    """Other ways of writing the same value: whole numbers as integers, members in another order."""
    yield whole(instance)
    if isinstance(instance, dict):
        yield dict(reversed(instance.items()))
        yield dict(sorted(instance.items()))
        for first in instance:
            yield {first: instance[first], **instance}
            others = {name: value for name, value in instance.items() if name != first}
            yield {**others, first: instance[first]}


def whole(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


# Telling it


def reason(message: str) -> str:
    """A refusal in a few words, the same for those of one kind."""
    told = message.removeprefix("schema cannot be followed: ")
    told = re.sub(r"'[^']*'|http\S+|\d+", "...", told)
    return told.split(" (")[0][:90]


def shown(instance: Json) -> str:
    text = json.dumps(instance, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."


COLUMNS = {
    "schemas followed": "followed",
    "refused by name": "refused",
    "valid accepted": "valid accepted",
    "valid, only in another spelling": "valid in another spelling",
    "valid refused": "valid refused",
    "invalid refused": "invalid refused",
    "invalid accepted": "invalid accepted",
}


def show(tallies: dict[str, Tally]) -> None:
    """Print the table, and then what is behind it."""
    print("|  |", " | ".join(COLUMNS), "|")
    print("|---|", " | ".join("---:" for _ in COLUMNS), "|")
    for name, tally in tallies.items():
        tally.counts["valid refused"] -= tally.counts["valid in another spelling"]
        row = [f"{tally.counts[key]:,}" for key in COLUMNS.values()]
        print(f"| {name} |", " | ".join(row), "|")
    for name, tally in tallies.items():
        print(f"\n{name}: {tally.counts['refused instances']} instances of refused schemas")
        lines(f"{count:5} {told}" for told, count in tally.reasons.most_common())
        lines(tally.disagreements)
    compiling = sum(tally.compiling for tally in tallies.values())
    masking = sum(tally.masking for tally in tallies.values())
    schemas = sum(tally.counts["followed"] + tally.counts["refused"] for tally in tallies.values())
    masks = sum(tally.masks for tally in tallies.values())
    print(f"\n{compiling / schemas * 1e3:.2f} ms a schema, {masking / masks * 1e6:.0f} us a mask")


def lines(texts: Iterable[str]) -> None:
    for text in texts:
        print("  ", text)


if __name__ == "__main__":
    main()
