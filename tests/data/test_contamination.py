import json

import pytest

from limner.data.contamination import Contamination, EvaluationRuns, read_evaluations

QUESTION = (
    "Natalia sold clips to forty-eight of her friends in April, and then she sold half as many "
    "clips in May. How many clips did Natalia sell altogether?"
)


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        (f"Before it. {QUESTION} After it.", True),
        (QUESTION.upper().replace(" ", "\n").replace(".", " - "), True),
        (" ".join(QUESTION.split()[:14]), True),
        (" ".join(QUESTION.split()[:11]), False),
        (
            QUESTION.replace("friends", "clients").replace("half", "twice").replace("May", "June"),
            False,
        ),
        (" ".join(reversed(QUESTION.split())), False),
        ("", False),
    ],
)
def test_thirteen_words_in_a_row_are_contamination(text, hit):
    found = EvaluationRuns([QUESTION]).find(text)
    assert (found is not None) == hit
    if found is not None:
        assert len(found.split()) == 13
        assert found in " ".join(
            QUESTION.lower().replace("-", " ").replace(",", "").replace(".", "").split()
        )


def test_short_texts_are_looked_for_whole_and_shorter_ones_counted():
    texts = ["The capital of this small country is called Vaduz", "What is it?"]
    runs = EvaluationRuns(texts, length=13, shortest=8)
    assert (runs.texts, runs.too_short) == (2, 1)
    assert runs.find("they say the CAPITAL of this small country is called Vaduz, by the way")
    assert runs.find("the capital of this small country is Vaduz") is None
    assert runs.find("What is it? What is it?") is None


def test_runs_of_numbers_and_repetitions_say_nothing():
    numbers = " ".join(map(str, range(40)))
    runs = EvaluationRuns([f"{numbers} {QUESTION}", "the cat " * 20])
    assert runs.find(f"a table of {numbers}") is None
    assert runs.find("of the cat " + "the cat " * 9) is None
    assert runs.find(QUESTION) is not None


def test_all_texts_of_a_record_count(tmp_path):
    record = {"id": 7, "question": "short", "answers": [{"text": QUESTION}, {"text": "no"}]}
    (tmp_path / "test.jsonl").write_text(json.dumps(record))
    runs = read_evaluations(Contamination(against=(str(tmp_path),)))
    assert runs.find(QUESTION) is not None
    assert runs.texts == 3
    assert runs.hash() == EvaluationRuns([QUESTION]).hash() != EvaluationRuns([QUESTION * 2]).hash()


def test_evaluations_that_say_nothing_are_refused(tmp_path):
    (tmp_path / "test.txt").write_text("too short")
    with pytest.raises(ValueError, match=r"no text of 8 words or more: lower contamination.short"):
        read_evaluations(Contamination(against=(str(tmp_path),)))
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_evaluations(Contamination(against=("nowhere.jsonl",)))
