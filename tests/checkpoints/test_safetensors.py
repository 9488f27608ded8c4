import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limner.checkpoints import disk
from limner.checkpoints.safetensors import (
    INDEX,
    WEIGHTS,
    SafetensorsFile,
    SafetensorsFolder,
    write_safetensors,
)
from limner.checkpoints.safetensors_header import DTYPES
from limner.checkpoints.tensors import CorruptFileError


def some_tensors(count: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {f"layer.{n}.weight": torch.randn(n + 1, 8, generator=generator) for n in range(count)}


def assert_holds(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    source = SafetensorsFolder(folder)
    assert set(source.names()) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(source.read(name), tensor)


def stored(header: object, data: int = 16, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data)


def tensor_entry(dtype: object = "F32", shape: object = (4,), offsets: object = (0, 16)) -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one(**fields: object) -> bytes:
    return stored({"w": tensor_entry(**fields)})


def two(first: tuple[int, int], second: tuple[int, int]) -> bytes:
    entries = {"a": first, "b": second}
    return stored({k: tensor_entry("U8", [v[1] - v[0]], v) for k, v in entries.items()})


HOSTILE = {
    "empty": (b"", "empty"),
    "five bytes": (b"abcde", "header claims"),
    "header of 2^60": (stored({}, length=2**60), f"header claims {2**60} bytes"),
    "header of no bytes": (bytes(100), "header claims 0 bytes"),
    "header past the end": (stored({}, length=100), "header claims 100 bytes"),
    "not JSON": (stored(b"{{{{{{{{"), "not valid JSON"),
    "not UTF-8": (stored(b'{"\xff":1}'), "not valid JSON"),
    "a list": (stored([]), "not a JSON table"),
    "deep nesting": (stored(b"[" * 100_000), "not valid JSON"),
    "a number of 5000 digits": (stored(b'{"w":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "a name twice": (stored(b'{"w":{},"w":{}}'), "twice"),
    "metadata no table": (stored({"__metadata__": 3}, data=0), "__metadata__ is '3'"),
    "entry no table": (stored({"w": 3}), "'w' has the unknown dtype"),
    "unknown dtype": (one(dtype="F31"), "unknown dtype 'F31'"),
    "dtype no string": (one(dtype=["F32"]), "unknown dtype"),
    "shape missing": (one(shape=None), "impossible shape"),
    "negative size": (one(shape=[-4]), "impossible shape"),
    "boolean size": (one(shape=[True]), "impossible shape"),
    "fractional size": (one(shape=[4.0]), "impossible shape"),
    "overflowing shape": (one(shape=[2**62, 2**62]), "needs"),
    "size of 2^70": (one(shape=[2**70]), "impossible shape"),
    "shape against offsets": (one(shape=[5]), "needs 20 bytes, but its offsets 0 to 16 hold 16"),
    "one offset": (one(offsets=[0]), "impossible offsets"),
    "offsets reversed": (one(offsets=[16, 0]), "needs 16 bytes"),
    "offsets past the end": (one(shape=[40], offsets=[0, 160]), "but tensor 'w' needs"),
    "overlap": (two((0, 10), (8, 16)), "'b' starts at byte"),
    "hole": (two((0, 6), (8, 16)), "leaves a gap"),
    "does not start at 0": (two((2, 8), (8, 16)), "leaves a gap"),
    "bytes left over": (two((0, 6), (6, 12)), "tensors end at byte"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_one_clear_line(tmp_path, case):
    content, message = HOSTILE[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        SafetensorsFile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.just(-1), st.integers(0, 1 << 20)),
)
def test_random_damage_is_read_or_refused_but_never_worse(tmp_path, places, cut):
    content = bytearray(safetensors.torch.save(some_tensors(3), {"format": "pt"}))
    for place, value in places:
        content[place % len(content)] = value
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content[: cut % (len(content) + 1)])
    try:
        source = SafetensorsFile(path)
    except CorruptFileError:
        return
    for name in source.names():
        source.read(name)


def test_whatever_we_accept_the_safetensors_library_accepts(tmp_path):
    """And the same tensors come out, of every number type, scalars and empty ones included."""
    numbers = torch.arange(6).view(2, 3)
    tensors = {name: numbers.to(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    [path] = write_safetensors(tensors.items(), tmp_path)
    theirs = safetensors.torch.load_file(path)
    source = SafetensorsFile(path)
    assert set(theirs) == set(source.names()) == set(tensors)
    for name, tensor in tensors.items():
        for read in (theirs[name], source.read(name)):
            assert read.dtype == tensor.dtype
            assert read.shape == tensor.shape
            assert read.to(torch.complex64).equal(tensor.to(torch.complex64))


def test_reading_is_a_view_of_the_file_and_writes_stay_out_of_it(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"w": torch.ones(4)}, path)
    source = SafetensorsFile(path)
    assert source.read("w").data_ptr() == source.read("w").data_ptr()
    source.read("w").zero_()
    assert SafetensorsFile(path).read("w").tolist() == [1, 1, 1, 1]


def test_numbers_at_an_odd_place_are_read(tmp_path):
    path = tmp_path / "odd.safetensors"
    header = {"a": tensor_entry("U8", [1], [0, 1]), "b": tensor_entry("F32", [2], [1, 9])}
    data = b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    path.write_bytes(stored(header, data=0) + data)
    assert SafetensorsFile(path).read("b").tolist() == [1.5, -2.0]


def test_shards_are_indexed_and_transformers_layout(tmp_path):
    tensors = some_tensors()
    written = write_safetensors(tensors.items(), tmp_path, max_shard_bytes=300)
    assert [path.name for path in written[:-1]] == [
        f"model-{n:05}-of-{len(written) - 1:05}.safetensors" for n in range(1, len(written))
    ]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    for name, shard in index["weight_map"].items():
        with safetensors.safe_open(tmp_path / shard, "pt") as file:
            assert torch.equal(file.get_tensor(name), tensors[name])
            assert file.metadata() == {"format": "pt"}
    assert_holds(tmp_path, tensors)


def test_transformers_opens_what_we_wrote(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    config.save_pretrained(tmp_path)
    write_safetensors(model.state_dict().items(), tmp_path, max_shard_bytes=1000)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, again(tokens).logits)


def test_tied_tensors_are_written_once_and_equal_ones_twice(tmp_path):
    weight = torch.ones(3, 4)
    shared = {"embedding": weight, "head": weight.detach(), "twin": weight.clone(), "t": weight.T}
    write_safetensors(shared.items(), tmp_path)
    assert sorted(SafetensorsFolder(tmp_path).names()) == ["embedding", "t", "twin"]


def test_lazily_made_tensors_are_all_written_though_memory_is_reused(tmp_path):
    made = ((f"w{n}", torch.full((1000,), float(n))) for n in range(50))
    write_safetensors(made, tmp_path, max_shard_bytes=4000)
    source = SafetensorsFolder(tmp_path)
    assert [source.read(f"w{n}")[0].item() for n in range(50)] == list(range(50))


def test_a_name_given_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two tensors under the name 'w'"):
        write_safetensors([("w", torch.ones(1)), ("w", torch.zeros(1))], tmp_path)


@pytest.mark.parametrize("old", [10**9, 300])
@pytest.mark.parametrize("new", [10**9, 300])
def test_new_weights_replace_old_ones_and_leave_nothing_behind(tmp_path, old, new):
    write_safetensors(some_tensors(5).items(), tmp_path, old)
    written = write_safetensors(some_tensors(6).items(), tmp_path, new)
    assert_holds(tmp_path, some_tensors(6))
    assert set(tmp_path.iterdir()) == set(written)


@pytest.mark.parametrize("old", [10**9, 300])
@pytest.mark.parametrize("new", [10**9, 300])
def test_whichever_rename_is_the_last_the_folder_loads(tmp_path, monkeypatch, old, new):
    """A crash at any rename or removal leaves all of the old or all of the new weights."""
    real = {"replace": os.replace, "unlink": Path.unlink}

    def crash_after(steps: int) -> None:
        remaining = iter(range(steps))

        def step(act):
            def wrapped(*arguments, **options):
                if next(remaining, None) is None:
                    raise KeyboardInterrupt
                return act(*arguments, **options)

            return wrapped

        monkeypatch.setattr(os, "replace", step(real["replace"]))
        monkeypatch.setattr(Path, "unlink", step(real["unlink"]))

    for steps in range(12):
        folder = tmp_path / str(steps)
        write_safetensors(some_tensors(5).items(), folder, old)
        crash_after(steps)
        with contextlib.suppress(KeyboardInterrupt):
            write_safetensors(some_tensors(6).items(), folder, new)
        monkeypatch.undo()
        count = len(list(SafetensorsFolder(folder).names()))
        assert_holds(folder, some_tensors(count))
        assert count in (5, 6)


def test_a_failing_source_leaves_the_old_weights(tmp_path):
    def breaks():
        yield "w", torch.ones(3)
        raise RuntimeError("broken")

    write_safetensors(some_tensors().items(), tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        write_safetensors(breaks(), tmp_path)
    assert_holds(tmp_path, some_tensors())
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]


def test_a_full_disk_is_refused_up_front_with_both_numbers(tmp_path, monkeypatch):
    write_safetensors(some_tensors().items(), tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"needs 40\.0 MB and 3\.0 MB are free"):
        write_safetensors([("w", torch.zeros(10_000_000))], tmp_path)
    assert_holds(tmp_path, some_tensors())


def run_python(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(program, capture_output=True, text=True, cwd=root, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="file-size limits are POSIX")
def test_a_disk_that_fills_while_writing_keeps_the_old_weights(tmp_path):
    write_safetensors(some_tensors().items(), tmp_path)
    result = run_python(
        """
        import resource, signal, sys, torch
        from limner.checkpoints.safetensors import write_safetensors
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_safetensors([("w", torch.zeros(100_000))], sys.argv[1])
        except OSError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "no disk space" in result.stdout
    assert "needs 0.4 MB" in result.stdout
    assert_holds(tmp_path, some_tensors())


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_kill_while_writing_keeps_the_old_weights(tmp_path):
    write_safetensors(some_tensors().items(), tmp_path)
    result = run_python(
        """
        import os, signal, sys, torch
        from limner.checkpoints.safetensors import write_safetensors
        def dies():
            for n in range(10):
                yield f"w{n}", torch.zeros(1000)
            os.kill(os.getpid(), signal.SIGKILL)
        write_safetensors(dies(), sys.argv[1], max_shard_bytes=4000)
        """,
        tmp_path,
    )
    assert result.returncode == -signal.SIGKILL
    assert_holds(tmp_path, some_tensors())
    write_safetensors(some_tensors(3).items(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]


def test_other_write_errors_are_passed_on(tmp_path):
    with (
        pytest.raises(OSError, match="pipe") as caught,
        disk.explain_full_disk(tmp_path, 1, "a checkpoint"),
    ):
        raise OSError(errno.EPIPE, "broken pipe")
    assert caught.value.errno == errno.EPIPE


def sharded(folder: Path) -> tuple[Path, dict[str, Any]]:
    write_safetensors(some_tensors().items(), folder, max_shard_bytes=300)
    return folder / INDEX, json.loads((folder / INDEX).read_text())


def test_a_missing_shard_is_named(tmp_path):
    _, index = sharded(tmp_path)
    shard = index["weight_map"]["layer.0.weight"]
    (tmp_path / shard).unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard} is missing"):
        SafetensorsFolder(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    path, index = sharded(tmp_path)
    index["weight_map"]["ghost"] = index["weight_map"]["layer.0.weight"]
    path.write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match="'ghost' is in model-00001"):
        SafetensorsFolder(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/passwd", "..", "", "a/b", "a\\b", "C:x", 7, None]
)
def test_an_index_cannot_point_out_of_its_folder(tmp_path, shard):
    (tmp_path / "model").mkdir()
    path, index = sharded(tmp_path / "model")
    safetensors.torch.save_file(some_tensors(1), tmp_path / "x.safetensors")
    index["weight_map"]["layer.0.weight"] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match=r"'layer\.0\.weight' is said to be in"):
        SafetensorsFolder(path.parent)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', "x"])
def test_an_index_without_a_map_is_refused(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CorruptFileError):
        SafetensorsFolder(tmp_path)
