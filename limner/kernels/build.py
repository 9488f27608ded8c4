"""Compile the C++ kernels: `python -m limner.kernels.build`, also run when limner is installed.

One shared library a processor family, of the same sources; the right one is chosen at run time. The
sources know nothing of PyTorch or Python, so any C++17 compiler will do and it takes seconds. What
is made is the best variant for this processor and the portable one, with which an installation that
is carried to a lesser processor still runs; `--all` makes every variant, as wheels need it.
"""

from __future__ import annotations

import argparse
import ctypes
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

HERE = Path(__file__).resolve().parent
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

#: Best first. The portable one is plain loops, which the compiler turns into what the machine has.
VARIANTS = (
    Variant("avx512vnni", _X86, ("-O2", "-DLIMNER_AVX512", *_AVX2, *_AVX512)),
    Variant("avxvnni", _X86, ("-O2", "-DLIMNER_AVX2", *_AVX2, "-mavxvnni")),
    Variant("avx2", _X86, ("-O2", "-DLIMNER_AVX2", *_AVX2)),
    Variant("neon", ("aarch64", "arm64"), ("-O2", "-DLIMNER_NEON", "-march=armv8.2-a+dotprod")),
    Variant("portable", (), ("-O2", "-ftree-vectorize")),
)

#: Compiled by themselves because they take longest. All other sources are compiled as one file: the
#: headers take longer than what is in them. So no two of them may give one name to two things.
_LARGE = ("linear", "linear_minimum")


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


def supported(compiler: str) -> list[Variant]:
    """The variants that this processor runs, best first; found by asking it."""
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "processor.so"
        source = str(SOURCES / "processor.cpp")
        error = _run([compiler, *FLAGS, "-shared", source, "-o", str(probe)])
        if error:
            raise RuntimeError(f"{compiler} could not compile limner's kernels:\n{error}")
        supports = ctypes.CDLL(str(probe)).limner_supports
        return [v for v in native_variants() if supports(v.name.encode())]


def build(compiler: str, folder: Path = BUILT, every: bool = False) -> list[str]:
    """Make the libraries that are not up to date; the names of those that exist then.

    The best one for this processor that the compiler can make and the portable one, or with `every`
    all that the compiler can make. Raises RuntimeError with the compiler's words if it cannot make
    the portable one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    portable = VARIANTS[-1]
    wanted = native_variants() if every else supported(compiler)
    groups = [[v] for v in wanted if v != portable] if every else [wanted[:-1]]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        last = threads.submit(_build_variant, compiler, portable, folder)
        firsts = list(threads.map(lambda group: _build_first(compiler, group, folder), groups))
    if error := last.result():
        raise RuntimeError(f"{compiler} could not compile limner's kernels:\n{error}")
    return [name for name in firsts if name] + [portable.name]


def _build_first(compiler: str, variants: Sequence[Variant], folder: Path) -> str | None:
    """Make the first of `variants` whose flags the compiler knows; its name, if any."""
    return next((v.name for v in variants if not _build_variant(compiler, v, folder)), None)


def _build_variant(compiler: str, variant: Variant, folder: Path) -> str:
    """Compile one variant unless its stamp says it is up to date; what went wrong, if anything."""
    command = [compiler, *FLAGS, *variant.flags]
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
    """Compile the sources, several at once, and link them; the first error."""
    units = _units(scratch)
    objects = [str(unit.with_suffix(".o")) for unit in units]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        errors = threads.map(
            lambda unit, made: _run([*command, "-c", str(unit), "-o", made]), units, objects
        )
        failed = next((error for error in errors if error), "")
    return failed or _run([*command, "-shared", *objects, "-o", str(target)])


def _units(scratch: Path) -> list[Path]:
    """The files to compile: each includes some of the sources."""
    sources = sorted(SOURCES.glob("*.cpp"))
    large = [[path] for path in sources if path.stem in _LARGE]
    units = {}
    for number, paths in enumerate([*large, [p for p in sources if p.stem not in _LARGE]]):
        text = "".join(f'#include "{path.as_posix()}"\n' for path in paths)
        units[scratch / f"unit{number}.cpp"] = text
    for unit, text in units.items():
        unit.write_text(text)
    return list(units)


def _run(command: Sequence[str]) -> str:
    """Run a compiler; what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr or "failed" if done.returncode else ""


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
    parser = argparse.ArgumentParser(
        prog="python -m limner.kernels.build", description=main.__doc__
    )
    parser.add_argument(
        "--all", action="store_true", help="every variant, not only the best for this processor"
    )
    options = parser.parse_args()
    compiler = find_compiler()
    if compiler is None:
        print("no C++ compiler found: install g++ or clang++, or set CXX", file=sys.stderr)
        return 2
    print(f"built {', '.join(build(compiler, every=options.all))} with {compiler} in {BUILT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
