import itertools
import json

import pytest

from limner.config import read_settings
from limner.data import filtering, manifest, preparing
from limner.data.corpus import lengths, open_corpus
from limner.data.filtering import Examiner, Filters
from limner.data.manifest import Amount
from limner.data.preparing import prepare
from limner.data.sources import text_source
from limner.data.workers import WorkerReader
from limner.files import write_whole
from tests.tokenizers.samples import byte_level

SECRET = "the treasure is buried under the seventh stone of the old garden wall near the gate"
KEPT = [
    f"page {number} tells of ship {number * 7} and harbour {number * 3}" for number in range(40)
]
TEXTS = [
    *KEPT[:10],
    "too short",
    KEPT[3].upper() + "  ",
    f"Listen: {SECRET}!",
    "",
    *KEPT[10:],
    "one two three four five six seven eight nine ten eleven twelve thirteen\x00 fourteen",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
    "write to jane@company.com or to joe@company.com about the ship and harbour",
]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(preparing, "BATCH_CHARACTERS", 150)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": SECRET, "answer": "yes"}))
    return lambda: text_source(tmp_path / "texts", unit="line")


def filters(tmp_path, **changes):
    values = {
        "repair": ["control"],
        "quality": {"words": [3, None]},
        "contamination": {"against": [str(tmp_path / "test.jsonl")]},
        "personal": {"action": "redact"},
        "duplicates": "near",
        "near": {"threshold": 0.7, "run": 2},
    }
    return read_settings(Filters, **(values | changes))


def run(source, tmp_path, folder="tokens", settings=None, **options):
    return prepare(
        source(),
        byte_level(),
        tmp_path / folder,
        filters=settings or filters(tmp_path),
        refused=tmp_path / f"{folder}.jsonl",
        shard_tokens=200,
        **options,
    )


def texts_in(folder):
    corpus, _ = open_corpus(folder)
    starts = itertools.accumulate(lengths(corpus), initial=0)
    spans = itertools.pairwise(starts)
    return [byte_level().decode(corpus.read(a, b - 1)[0].tolist()) for a, b in spans]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_document_is_kept_or_counted_with_its_reason(source, tmp_path):
    made = run(source, tmp_path)
    redacted = "write to <EMAIL> or to <EMAIL> about the ship and harbour"
    assert texts_in(tmp_path / "tokens") == [*KEPT, TEXTS[-3].replace("\0", ""), redacted]
    assert {name: amount.documents for name, amount in made.refused.items()} == {
        "quality.words": 1,
        "duplicate.exact": 1,
        "contamination": 1,
        "duplicate.near": 1,
    }
    assert made.noted == {
        "repair.control": Amount(documents=1, text_bytes=1),
        "personal.email": Amount(documents=1, text_bytes=2 * len("joe@company.com") + 1),
    }
    assert made.refused["duplicate.exact"].text_bytes == len(KEPT[3]) + 2
    written = [json.loads(line) for line in (tmp_path / "tokens.jsonl").read_text().splitlines()]
    assert [(record["reason"], record["text"]) for record in written] == [
        ("quality.words", "too short"),
        ("duplicate.exact", KEPT[3].upper() + "  "),
        ("contamination", f"Listen: {SECRET}!"),
        ("duplicate.near", TEXTS[-2]),
    ]
    assert written[0]["detail"] == "2 is below 3"
    assert not list((tmp_path / "tokens").glob("*.seen"))


def test_no_filters_change_nothing(source, tmp_path):
    prepare(source(), byte_level(), tmp_path / "plain")
    assert texts_in(tmp_path / "plain") == [text for text in TEXTS if text]


def test_several_processes_make_the_same_bytes(source, tmp_path):
    run(source, tmp_path, "one")
    run(source, tmp_path, "two", read=WorkerReader(2))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.parametrize("killed_at", range(2, 22, 2))
def test_a_killed_preparation_goes_on_to_the_same_files(source, tmp_path, monkeypatch, killed_at):
    run(source, tmp_path, "straight")
    writes = itertools.count(1)

    def killed(path, parts):
        if next(writes) == killed_at:
            raise KeyboardInterrupt
        write_whole(path, parts)

    with monkeypatch.context() as patch:
        for room in (preparing, manifest, filtering):
            patch.setattr(room, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path)
    run(source, tmp_path)
    assert files(tmp_path / "tokens") == files(tmp_path / "straight")
    refused = [tmp_path / f"{name}.jsonl" for name in ("tokens", "straight")]
    assert refused[0].read_bytes() == refused[1].read_bytes()


def test_a_finished_folder_is_left_alone_and_other_filters_are_refused(source, tmp_path):
    made = run(source, tmp_path)
    assert run(source, tmp_path) == made
    with pytest.raises(ValueError, match="was begun with other filters"):
        run(source, tmp_path, settings=filters(tmp_path, duplicates="exact"))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": SECRET + " and the well"}))
    with pytest.raises(ValueError, match="was begun with other filters"):
        run(source, tmp_path)


def test_the_file_of_refused_documents_is_never_someone_elses(source, tmp_path):
    (tmp_path / "tokens.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="exists: name another file"):
        run(source, tmp_path)
    assert (tmp_path / "tokens.jsonl").read_text() == "mine"
    prepare(source(), byte_level(), tmp_path / "tokens")
    (tmp_path / "tokens.jsonl").unlink()
    with pytest.raises(ValueError, match="is complete, so there is nothing to write"):
        prepare(source(), byte_level(), tmp_path / "tokens", refused=tmp_path / "tokens.jsonl")


def test_when_nothing_is_left_the_commonest_reason_is_named(source, tmp_path):
    settings = read_settings(Filters, quality={"words": [1000, None]})
    with pytest.raises(ValueError, match=r"all 46 documents .* most of them for quality\.words"):
        prepare(source(), byte_level(), tmp_path / "tokens", filters=settings)


@pytest.mark.parametrize(
    ("changes", "refused", "noted"),
    [
        ({"personal": {"action": "refuse"}}, "personal.email", None),
        ({"personal": {"action": "report"}}, None, "personal.email"),
        ({"contamination": {"action": "report"}}, None, "contamination"),
    ],
)
def test_findings_are_refused_or_only_counted(source, tmp_path, changes, refused, noted):
    contamination = {"against": [str(tmp_path / "test.jsonl")]} | changes.get("contamination", {})
    made = run(
        source, tmp_path, settings=filters(tmp_path, **changes | {"contamination": contamination})
    )
    assert (refused in made.refused) == (refused is not None)
    assert noted is None or made.noted[noted].documents == 1
    kept = texts_in(tmp_path / "tokens")
    assert (TEXTS[-1] in kept) == (changes.get("personal") == {"action": "report"})
    assert (f"Listen: {SECRET}!" in kept) == (noted == "contamination")


def test_boilerplate_is_learnt_from_the_source_itself(tmp_path):
    for number in range(6):
        text = f"Menu  Shop\nArticle {number} of this paper\nAll rights reserved"
        (tmp_path / f"{number}.txt").write_text(text)
    source = text_source(tmp_path / "*.txt")
    settings = read_settings(Filters, boilerplate=0.5)
    made = prepare(source, byte_level(), tmp_path / "tokens", filters=settings)
    assert texts_in(tmp_path / "tokens") == [f"Article {n} of this paper" for n in range(6)]
    assert made.noted["boilerplate"].documents == 6


def test_what_repairs_leave_empty_is_refused(tmp_path):
    (tmp_path / "texts").write_text("<p></p>\n \na text")
    source = text_source(tmp_path / "texts", unit="line")
    settings = read_settings(Filters, repair=["html"])
    made = prepare(source, byte_level(), tmp_path / "tokens", filters=settings)
    assert texts_in(tmp_path / "tokens") == [" ", "a text"]
    assert made.refused == {"empty": Amount(documents=1, text_bytes=7)}


def test_evaluations_too_short_to_look_for_are_told(tmp_path, caplog):
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": SECRET, "answer": "yes"}))
    Examiner(filters(tmp_path))
    assert "1 of 2 evaluation texts have fewer than 8 words" in caplog.text
