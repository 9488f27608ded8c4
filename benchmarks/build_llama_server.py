"""Build llama-server, which `benchmarks.serve` measures beside `limner serve`, into .peers/bin.

    python -m benchmarks.build_llama_server

The source is that of the llama-cpp-python that `make bench-peers` has installed, which brings
llama.cpp's along but does not build its server. Takes CMake, a C++ compiler and some ten minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.sides import PEERS

OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
)  # fmt: skip


def main() -> None:
    if shutil.which("cmake") is None:
        raise SystemExit("building llama-server needs CMake: install it, or `pip install cmake`")
    target = PEERS / "bin" / "llama-server"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source, build = fetch(folder, installed()), folder / "build"
        jobs = str(os.cpu_count() or 1)
        run("cmake", "-S", source, "-B", build, *OPTIONS)
        run("cmake", "--build", build, "--target", "llama-server", "--parallel", jobs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / "bin" / "llama-server", target)
    print(target)


def installed() -> str:
    """The version of llama-cpp-python among the peers."""
    for found in distributions(path=[str(PEERS)]):
        if found.metadata["Name"].replace("_", "-").lower() == "llama-cpp-python":
            return found.version
    raise SystemExit("llama-cpp-python is not among the peers: run `make bench-peers`")


def fetch(folder: Path, version: str) -> Path:
    """llama.cpp's source in this version of llama-cpp-python."""
    run(
        sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder,
        "--no-binary", "llama-cpp-python", f"llama-cpp-python=={version}",
    )  # fmt: skip
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


if __name__ == "__main__":
    main()
