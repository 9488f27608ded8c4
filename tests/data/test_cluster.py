"""One test with Ray, which takes long to start; what is around it is tested without."""

import itertools
import json
import os
import sys
import types

import pytest

from limner.config import read_settings
from limner.data import preparing
from limner.data.cluster import ClusterReader
from limner.data.extra import cluster
from limner.data.filtering import Filters
from limner.data.preparing import prepare
from limner.data.sources import text_source
from tests.tokenizers.samples import byte_level

SECRET = "the treasure is buried under the seventh stone of the old garden wall near the gate"


def write_texts(folder):
    folder.mkdir()
    for name in range(6):
        lines = [f"page {line} of book {name} tells of ship {line * name}" for line in range(50)]
        lines[7:9] = ["", "short", f"So: {SECRET}.", "the same line in every book, over and over"]
        lines.append(f"write to author{name}@company.com about ship {name}, and ask for the book")
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "test.jsonl").write_text(json.dumps({"text": SECRET}))


def prepared(folder, name, **options):
    """The shards and the refused documents of a preparation with all filters."""
    values = {
        "repair": ["control", "unicode", "html"],
        "quality": {"words": [3, None]},
        "contamination": {"against": [str(folder / "test.jsonl")]},
        "personal": {"action": "redact"},
        "duplicates": "near",
        "near": {"threshold": 0.7, "run": 2},
    }
    refused = folder / f"{name}.refused"
    prepare(
        text_source(folder / "*.txt", unit="line"),
        byte_level(),
        folder / name,
        filters=read_settings(Filters, **values),
        refused=refused,
        shard_tokens=1000,
        **options,
    )
    files = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
    return files | {"refused": refused.read_bytes()}


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of Ray and what it starts
def test_a_cluster_makes_the_same_bytes_as_one_process(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'limner[cluster]'")
    pytest.importorskip("ray.data", reason="pip install 'limner[cluster]'")
    monkeypatch.setattr(preparing, "BATCH_CHARACTERS", 900)
    write_texts(tmp_path / "texts")
    here = prepared(tmp_path / "texts", "here")
    assert len([name for name in here if name.endswith(".tokens")]) > 3
    assert b"duplicate.near" in here["refused"]
    assert b"contamination" in here["refused"]
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "write_shard", stop_at(3, preparing.write_shard))
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "texts", "stopped")
    ray.init(log_to_driver=False, include_dashboard=False, num_cpus=2)
    try:
        reader = ClusterReader()
        assert prepared(tmp_path / "texts", "there", read=reader) == here
        assert prepared(tmp_path / "texts", "stopped", read=reader) == here
    finally:
        ray.shutdown()


def stop_at(number, write):
    """`write`, but the call of that number is interrupted."""
    calls = itertools.count(1)

    def stopped(*arguments):
        if next(calls) == number:
            raise KeyboardInterrupt
        return write(*arguments)

    return stopped


@pytest.mark.parametrize(("running", "asked", "found"), [(False, None, "0"), (True, "1", "1")])
def test_ray_does_not_report_to_its_makers_unless_told_to(monkeypatch, running, asked, found):
    """And it is ended by whom it was started."""
    calls = []

    class Ray(types.ModuleType):
        def __getattr__(self, name):
            if name == "is_initialized":
                return lambda: running
            return lambda **_: calls.append((name, os.environ["RAY_USAGE_STATS_ENABLED"]))

    monkeypatch.setitem(sys.modules, "ray", Ray("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", Ray("ray.data"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", asked or "")  # so that it is put back
    if asked is None:
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    with cluster("ray.data", "a test") as ray:
        ray.work()
    expected = ["work"] if running else ["init", "work", "shutdown"]
    assert calls == [(name, found) for name in expected]


def test_without_ray_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write_texts(tmp_path / "texts")
    with pytest.raises(ValueError, match=r"a cluster needs ray: pip install 'limner\[cluster\]'"):
        prepared(tmp_path / "texts", "there", read=ClusterReader())
