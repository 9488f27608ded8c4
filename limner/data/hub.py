"""Data sets of the Hugging Face hub, as files that it keeps in its own cache.

A name is `hub:OWNER/NAME`, with `/GLOB` after it for some of the files only.
"""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "hub:"
NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<glob>.+))?", re.ASCII)
#: No scripts: nothing that runs is fetched.
FORMATS = ("parquet", "jsonl", "ndjson", "txt")
COMPRESSIONS = ("", ".gz", ".bz2", ".xz", ".zst")
DATA = [f"*.{form}{compression}" for form in FORMATS for compression in COMPRESSIONS]


def fetch_data_set(name: str) -> list[Path]:
    """Fetch a data set's files of text and records; what is there already is not fetched again.

    Raises:
        ValueError: the name is none, or the data set has no such files.
        ConnectionError: the hub cannot be reached or refuses.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is no data set: write hub:OWNER/NAME or hub:OWNER/NAME/GLOB")
    patterns = [match["glob"]] if match["glob"] else DATA
    folder = _snapshot(match["repository"], patterns)
    files = sorted({path for pattern in patterns for path in folder.rglob(pattern)})
    if not files:
        raise ValueError(f"{match['repository']} has no file like {patterns[0]} on the hub")
    return files


def _snapshot(repository: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ConnectionError(
            f"cannot fetch {repository} from the hub ({reason}): check the name and the network, "
            "set HF_ENDPOINT to a mirror, or give files that are on this machine"
        ) from error
