"""Writing files so that nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def write_whole(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file so that a kill or a full disk leaves either the old one or the new one.

    Raises OSError, which names the file, if it cannot be written.
    """
    staged = path.with_name(f".{path.name}.part")
    try:
        with staged.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        # that of a full disk names no file
        error.filename = error.filename or str(path)
        raise
    finally:
        staged.unlink(missing_ok=True)
