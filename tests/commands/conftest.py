import io
from pathlib import Path

import pytest

from limner.commands import main
from tests.docs.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The path of a random Llama with a chat template and a context of 8192 tokens."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No test sees the models, the keys or the history of whoever runs it."""
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LIMNER_TRACEBACK", raising=False)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def limner(capsys, monkeypatch):
    """Run the command line in this process: `limner("generate", model, "hi", stdin=b"...")`."""

    def run(*words, stdin=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        code = main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(limner):
    """Run a command that must end in one line on standard error and exit code 2; the line."""

    def run(*words, stdin=b""):
        result = limner(*words, stdin=stdin)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith("\n")
        return result.err

    return run


@pytest.fixture
def write(tmp_path):
    """Write a file and give its path."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file
