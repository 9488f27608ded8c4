import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from limner.checkpoints import disk
from limner.checkpoints.download import fetch
from limner.checkpoints.network import DownloadError
from tests.checkpoints.index_server import FILENAME, serve

CONTENT = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(1_000_000)


@pytest.fixture
def index():
    with serve(CONTENT) as running:
        yield running


@pytest.fixture
def part(tmp_path):
    return tmp_path / "wheel.part"


def get(index, part, content=CONTENT, progress=None, delays=(0, 0)):
    digest = hashlib.sha256(content).hexdigest()
    address = f"{index.address}/files/{FILENAME}"
    fetch(address, part, digest, len(content), progress, delays)


def ranges(index):
    return [headers.get("range") for headers in index.asked_for_wheel()]


def test_a_whole_file_arrives_with_progress(index, part):
    seen = []
    get(index, part, progress=lambda done, total: seen.append((done, total)))
    assert part.read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(part.parent.iterdir()) == [part]


def test_dropped_connections_are_resumed_where_they_broke(index, part):
    index.drop_after = [300_000, 300_000, 300_000]
    get(index, part)
    assert part.read_bytes() == CONTENT
    assert ranges(index) == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_connection_that_never_gets_further_is_given_up(index, part):
    index.drop_after = [0] * 9
    with pytest.raises(
        DownloadError, match=r"cannot fetch .*127\.0\.0\.1.*after 0 of 1000000 bytes"
    ):
        get(index, part)
    assert len(index.asked) == 3


def test_each_connection_that_gets_further_earns_new_tries(index, part):
    index.drop_after = [1000] * 20
    get(index, part)
    assert part.read_bytes() == CONTENT


def test_a_server_without_ranges_is_read_from_the_start(index, part):
    part.write_bytes(CONTENT[:400_000])
    index.ranges = False
    get(index, part)
    assert part.read_bytes() == CONTENT


def test_without_ranges_endless_drops_end(index, part):
    index.ranges = False
    index.drop_after = [500_000] * 50
    with pytest.raises(DownloadError, match="cannot fetch"):
        get(index, part)


def test_a_part_of_an_older_version_is_not_continued(index, part):
    index.drop_after = [300_000]
    with pytest.raises(DownloadError):
        get(index, part, delays=())
    index.wheel, index.etag = OTHER, '"two"'
    get(index, part, OTHER)
    assert part.read_bytes() == OTHER
    assert index.asked_for_wheel()[-1]["if-range"] == '"one"'


def test_a_changed_file_is_noticed_without_the_servers_help(index, part):
    index.etag = None
    part.write_bytes(OTHER[:300_000])
    get(index, part)
    assert part.read_bytes() == CONTENT
    assert ranges(index) == ["bytes=300000-", None]


def test_a_weak_mark_does_not_vouch_for_bytes(index, part):
    index.etag = 'W/"one"'
    index.drop_after = [300_000]
    get(index, part)
    assert part.read_bytes() == CONTENT
    assert "if-range" not in index.asked_for_wheel()[-1]


def test_a_wrong_checksum_deletes_the_file_and_says_both(index, part):
    index.wheel = OTHER
    with pytest.raises(DownloadError) as caught:
        get(index, part)
    for content in (CONTENT, OTHER):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert list(part.parent.iterdir()) == []


@pytest.mark.parametrize("length", [999_999, 1_000_001])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(index, part, length):
    index.wheel = OTHER[:length].ljust(length)
    with pytest.raises(DownloadError, match=rf"of {length} bytes, not 1000000"):
        get(index, part)
    assert not part.exists()


@pytest.mark.parametrize("excess", [0, 5])
def test_a_part_at_least_as_long_as_the_file_is_checked_not_trusted(index, part, excess):
    part.write_bytes(OTHER + bytes(excess))
    get(index, part)
    assert part.read_bytes() == CONTENT


def test_a_complete_part_needs_no_connection(index, part):
    part.write_bytes(CONTENT)
    get(index, part)
    assert index.asked == []


def test_a_file_that_shrank_on_the_server_is_fetched_anew_and_refused(index, part):
    index.wheel = CONTENT[:200_000]
    part.write_bytes(CONTENT[:300_000])
    with pytest.raises(DownloadError, match="of 200000 bytes, not 1000000"):
        get(index, part)


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(index, part):
    index.answers = [503, 403]
    with pytest.raises(DownloadError, match="answered 403 Forbidden for"):
        get(index, part)
    assert len(index.asked) == 2


def test_an_interrupt_leaves_a_part_to_resume(index, part):
    def interrupt(done, total):
        if done >= 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(index, part, progress=interrupt)
    kept = part.stat().st_size
    assert 500_000 <= kept < 1_000_000
    get(index, part)
    assert part.read_bytes() == CONTENT
    assert ranges(index)[-1] == f"bytes={kept}-"


FETCH = """
    import hashlib, resource, signal, sys
    from pathlib import Path
    from limner.checkpoints.download import fetch
    address, part, digest, size, limit = sys.argv[1:]
    if int(limit):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        fetch(address, Path(part), digest, int(size))
    except OSError as error:
        print(error)
"""


def fetch_elsewhere(index, part, limit=0):
    address = f"{index.address}/files/{FILENAME}"
    digest = hashlib.sha256(CONTENT).hexdigest()
    arguments = [address, str(part), digest, str(len(CONTENT)), str(limit)]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FETCH), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_process_leaves_a_part_to_resume(index, part):
    index.chunk_pause.clear()
    process = fetch_elsewhere(index, part)
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT)
    index.chunk_pause.set()
    get(index, part)
    assert part.read_bytes() == CONTENT
    assert ranges(index)[-1] == f"bytes={kept}-"


@pytest.mark.skipif(sys.platform == "win32", reason="file-size limits are POSIX")
def test_a_disk_that_fills_is_one_line_and_leaves_a_part_to_resume(index, part):
    output, _ = fetch_elsewhere(index, part, limit=600_000).communicate()
    assert "no disk space" in output
    assert "wheel.part needs 1.0 MB" in output
    kept = part.stat().st_size
    get(index, part)
    assert part.read_bytes() == CONTENT
    assert ranges(index)[-1] == f"bytes={kept}-"


def test_space_is_counted_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    disk.require_space(tmp_path, 1_000_000, "a model")
    with pytest.raises(OSError, match=r"a model needs 1\.5 MB and 1\.0 MB are free"):
        disk.require_space(tmp_path, 1_500_000, "a model")
