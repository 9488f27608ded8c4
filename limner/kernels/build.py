"""Compile the C++ kernels: `python -m limner.kernels.build`, also run when limner is installed.

One shared library a processor family, of the same sources; the right one is chosen at run time. The
sources know nothing of PyTorch or Python, so any C++17 compiler will do and it takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "cpp"
BUILT = HERE / "built"

#: No fast-math: it would let the compiler round the same sum differently in two kernels.
FLAGS = ("-std=c++17", "-fPIC", "-pthread", "-fvisibility=hidden", "-ffp-contract=off")


@dataclass(frozen=True)
class Variant:
    """One processor family: the machines it is compiled on and the flags that take."""

    name: str
    machines: tuple[str, ...]
    flags: tuple[str, ...]


_X86 = ("x86_64", "AMD64")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")

#: Best first. The portable one is plain loops, which -O3 turns into what the machine has.
VARIANTS = (
    Variant("avx512vnni", _X86, ("-O2", "-DLIMNER_AVX512", *_AVX2, *_AVX512)),
    Variant("avxvnni", _X86, ("-O2", "-DLIMNER_AVX2", *_AVX2, "-mavxvnni")),
    Variant("avx2", _X86, ("-O2", "-DLIMNER_AVX2", *_AVX2)),
    Variant("neon", ("aarch64", "arm64"), ("-O2", "-DLIMNER_NEON", "-march=armv8.2-a+dotprod")),
    Variant("portable", (), ("-O3",)),
)


def find_compiler() -> str | None:
    """The C++ compiler: CXX if it is set, else the first found of the usual names."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def library_path(name: str, folder: Path = BUILT) -> Path:
    """Where the library of a variant is kept."""
    return folder / f"limner_{name}.so"


def stamp_path(name: str, folder: Path = BUILT) -> Path:
    """Where it is noted what the library of a variant was made of."""
    return folder / f"limner_{name}.stamp"


def native_variants(machine: str | None = None) -> list[Variant]:
    """The variants that a compiler on this kind of machine can make."""
    machine = platform.machine() if machine is None else machine
    return [v for v in VARIANTS if not v.machines or machine in v.machines]


def build(compiler: str, folder: Path = BUILT, extra_flags: Sequence[str] = ()) -> list[str]:
    """Make the library of each variant that is not up to date; the names of those that exist then.

    A variant whose flags the compiler does not know is left out. Raises RuntimeError with the
    compiler's words if the portable one fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    variants = native_variants()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        errors = list(
            threads.map(lambda v: _build_variant(compiler, v, folder, extra_flags), variants)
        )
    if errors[-1]:
        raise RuntimeError(f"{compiler} could not compile limner's kernels:\n{errors[-1]}")
    return [variant.name for variant, error in zip(variants, errors, strict=True) if not error]


def _build_variant(
    compiler: str, variant: Variant, folder: Path, extra_flags: Sequence[str]
) -> str:
    """Compile one variant unless its stamp says it is up to date; what went wrong, if anything."""
    command = [compiler, *FLAGS, *variant.flags, *extra_flags]
    target, stamp = library_path(variant.name, folder), stamp_path(variant.name, folder)
    content = _stamp(command)
    if target.exists() and stamp.exists() and stamp.read_text() == content:
        return ""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / target.name
        error = _compile(command, Path(scratch), made)
        if not error:
            made.replace(target)  # atomic: a running process keeps the file that it has open
            stamp.write_text(content)
    return error


def _compile(command: Sequence[str], scratch: Path, target: Path) -> str:
    """Compile every source by itself, several at once, and link them; the first error."""

    def run(arguments: Sequence[str]) -> str:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        return done.stderr or "failed" if done.returncode else ""

    objects = {path: scratch / f"{path.stem}.o" for path in sorted(SOURCES.glob("*.cpp"))}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        errors = list(
            threads.map(lambda pair: run(["-c", str(pair[0]), "-o", str(pair[1])]), objects.items())
        )
    failed = next((error for error in errors if error), "")
    return failed or run(["-shared", *map(str, objects.values()), "-o", str(target)])


def _stamp(command: Sequence[str]) -> str:
    """What a library was made of and how; the sources come first."""
    return f"{sources_digest()} {hashlib.sha256(chr(0).join(command).encode()).hexdigest()}"


def sources_digest() -> str:
    """A digest of all sources."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(name: str) -> bool:
    """Whether the library of a variant was built, and of these sources."""
    stamp = stamp_path(name)
    built = library_path(name).exists() and stamp.exists()
    return built and stamp.read_text().startswith(sources_digest())


def main() -> int:
    """Build, and say what came of it."""
    compiler = find_compiler()
    if compiler is None:
        print("no C++ compiler found: install g++ or clang++, or set CXX", file=sys.stderr)
        return 2
    print(f"built {', '.join(build(compiler))} with {compiler} in {BUILT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
