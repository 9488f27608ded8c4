"""Models of the Hugging Face hub.

A name is `OWNER/REPOSITORY`, `OWNER/REPOSITORY:REVISION` or `OWNER/REPOSITORY:FILE.gguf`.
"""

import re
from pathlib import Path

from limner.checkpoints.network import DownloadError

NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(:(?P<part>[\w./-]+))?", re.ASCII)
WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
# No *.bin and no *.py: nothing that runs code is fetched.
BESIDE_WEIGHTS = [
    "*config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.jinja",
    "modules.json",
    "LICENSE*",
]


def pull_from_hub(name: str, force: bool = False) -> Path:
    """Fetch a model into the hub's own cache, where huggingface_hub resumes and checks it.

    Args:
        name: a repository, with a revision or one GGUF file (for a split model, any of its parts).
        force: fetch again what is there.

    Returns:
        The folder, or the file if one was named.

    Raises:
        DownloadError: the hub cannot be reached or refuses, or the repository has no such weights.
    """
    match = NAME.fullmatch(name)
    assert match is not None, name
    repository, part = match["repository"], match["part"]
    if part and part.endswith(".gguf"):
        siblings = re.sub(r"-\d{5}-of-(\d{5}\.gguf)$", r"-*-of-\1", part)
        path = _snapshot(repository, None, [siblings], force) / part
        found = path.is_file()
    else:
        path = _snapshot(repository, part, WEIGHTS + BESIDE_WEIGHTS, force)
        found = any(path.glob("*.safetensors"))
    if not found:
        wanted = part if path.suffix == ".gguf" else "safetensors"
        raise DownloadError(
            f"{repository} has no {wanted}: name one of its GGUF files as {repository}:FILE.gguf, "
            "or choose a repository with safetensors"
        )
    return path


def _snapshot(repository: str, revision: str | None, patterns: list[str], force: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=patterns, force_download=force
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DownloadError(
            f"the hub shows you no {repository}{f' at {revision}' if revision else ''}: check the "
            f"spelling, or log in with `hf auth login` if it is private ({_reason(error)})"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise DownloadError(
            f"cannot fetch {repository} from the hub ({_reason(error)}): check the network, set "
            "HF_ENDPOINT to a mirror, or give the path of a model that is already on this machine"
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
