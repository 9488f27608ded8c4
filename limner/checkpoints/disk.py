"""Writing so that a full disk, a kill or a crash never costs a good file."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A file-size limit (ulimit -f) and a quota fail like a full disk, and are mended the same way.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start writing what cannot be finished.

    Args:
        folder: where it is to be written; it exists.
        needed: bytes.
        purpose: what is being written, for the message.

    Raises:
        OSError: the disk has less than `needed` bytes free; the message names both numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _no_room(folder, needed, purpose, free)


@contextmanager
def explain_full_disk(folder: Path, needed: int, purpose: str) -> Iterator[None]:
    """Turn a write that ran out of space into the same one line as `require_space`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(folder).free
        raise _no_room(folder, needed, purpose, free) from error


def _no_room(folder: Path, needed: int, purpose: str, free: int) -> OSError:
    return OSError(
        f"no disk space in {folder}: {purpose} needs {megabytes(needed)} and {megabytes(free)} are "
        "free: delete something there, or choose another place"
    )


def megabytes(count: int) -> str:
    """A number of bytes as people read it: "92.9 MB"."""
    return f"{count / 1e6:,.1f} MB"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut (Windows does, and cannot open folders)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staging_folder(folder: Path, name: str = ".unfinished") -> Iterator[Path]:
    """An empty folder inside `folder` for unfinished files, cleared before and after.

    Its name is fixed so that what a killed process left behind is removed by the next one.
    """
    staging = folder / name
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
