"""Building the kernels, and the sanitizers over all of them."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest

from limner.kernels import build, library

DRIVER = Path(__file__).parent / "sanitize.cpp"
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [variant.name for variant in build.native_variants()])
def test_sanitizers_find_nothing(name, tmp_path):
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    variant = next((v for v in build.supported(compiler) if v.name == name), None)
    if variant is None:
        pytest.skip(f"this processor cannot run {name}")
    sources = [str(path) for path in build.SOURCES.glob("*.cpp")]
    program = tmp_path / "sanitize"
    command = [compiler, *build.FLAGS, *variant.flags, *SANITIZERS, f"-I{build.SOURCES}"]
    command += [*sources, str(DRIVER), "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in compiled.stderr and "san" in compiled.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert compiled.returncode == 0, compiled.stderr[-2000:]
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{name}: clean\n"), done.stderr[-4000:]


def test_variants_fit_the_machine():
    assert [v.name for v in build.native_variants("x86_64")] == [
        "avx512vnni", "avxvnni", "avx2", "portable",
    ]  # fmt: skip
    assert [v.name for v in build.native_variants("aarch64")] == ["neon", "portable"]
    assert [v.name for v in build.native_variants("riscv64")] == ["portable"]


def test_a_library_of_other_sources_is_not_loaded(tmp_path, monkeypatch):
    if not build.is_current("portable"):
        pytest.skip("nothing is built")
    stamp = tmp_path / "stamp"
    stamp.write_text("made of something else")
    monkeypatch.setattr(build, "stamp_path", lambda name: stamp)
    assert not build.is_current("portable")


@pytest.mark.parametrize("every", [False, True])
def test_a_variant_that_the_compiler_does_not_know_is_left_out(tmp_path, every, monkeypatch):
    variants = (build.Variant("future", (), ()), *build.VARIANTS[-2:])
    monkeypatch.setattr(build, "supported", lambda compiler: list(variants))
    monkeypatch.setattr(build, "native_variants", lambda: list(variants))
    failing = {"future"}
    monkeypatch.setattr(
        build, "_build_variant", lambda _, variant, __: "no" if variant.name in failing else ""
    )
    assert build.build("c++", tmp_path, every) == [variants[1].name, "portable"]
    failing.add("portable")
    with pytest.raises(RuntimeError, match="could not compile limner's kernels:\nno"):
        build.build("c++", tmp_path, every)


def test_a_better_variant_that_is_not_built_is_named_in_the_log(monkeypatch, caplog):
    portable = library.load("portable")
    if portable is None or library.load("avx2") is None:
        pytest.skip("nothing is built, or this processor runs the portable variant only")
    monkeypatch.setattr(library, "load", lambda name: portable if name == "portable" else None)
    library.best.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert library.best() is portable
    library.best.cache_clear()
    assert "run `python -m limner.kernels.build` to build them as " in caplog.text


def test_a_compiler_that_fails_is_quoted(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(RuntimeError, match="could not compile limner's kernels:\nno such luck"):
        build.build(str(compiler), tmp_path / "built")


def test_one_log_line_says_that_nothing_is_built(monkeypatch, caplog):
    monkeypatch.setattr(library, "load", lambda name: None)
    library.best.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert library.best() is None
    library.best.cache_clear()
    assert [record.message for record in caplog.records] == [
        "limner's C++ kernels are not built, so plain PyTorch runs instead, slower: "
        "run `python -m limner.kernels.build` (needs a C++ compiler)"
    ]


def test_a_variant_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="kernels for 'mmx' are not there"), library.using("mmx"):
        pass


def test_a_negative_number_of_threads_is_refused():
    with pytest.raises(ValueError, match="threads is -1"):
        library.set_threads(-1)
