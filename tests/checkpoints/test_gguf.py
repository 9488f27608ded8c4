import os
import re
import resource
import struct
import sys
from contextlib import contextmanager

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limner.checkpoints.gguf import GGUFFile
from limner.checkpoints.tensors import CorruptFileError
from tests.checkpoints.gguf_samples import (
    BLOCK_FORMATS,
    entry,
    gguf_bytes,
    row,
    some_blocks,
    text,
    write_gguf,
)

U32, TEXT, ARRAY = 4, 8, 9


@pytest.fixture
def sample(tmp_path):
    return write_gguf(tmp_path / "model.gguf")


def test_metadata_are_plain_values(sample):
    metadata = GGUFFile(sample).metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "smål 模型"
    assert metadata["llama.block_count"] == 2
    assert metadata["llama.rope.freq_base"] == 100000.0
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.tokens"] == [f"tökën{n}" for n in range(20)]
    assert metadata["tokenizer.ggml.token_type"].tolist() == list(range(20))


def test_all_tensors_equal_gguf_pys_reading(sample):
    file = GGUFFile(sample)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(sample).tensors}
    assert list(file.names()) == list(theirs)
    for name, tensor in theirs.items():
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert file.shape(name) == tuple(reversed(tensor.shape.tolist()))
        assert file.format(name) == tensor.tensor_type.name
        assert torch.equal(file.read(name), torch.from_numpy(values.astype(np.float32)))


@pytest.mark.parametrize("format", BLOCK_FORMATS)
def test_blocks_are_the_stored_bytes_in_place(tmp_path, format):
    file = GGUFFile(write_gguf(tmp_path / "model.gguf", format, rows=5))
    blocks = file.blocks("blocks")
    assert np.array_equal(blocks.numpy(), some_blocks(format, 5, 2))
    whole = file.tensor("blocks").file.bytes
    assert blocks.data_ptr() == whole.data_ptr() + file.tensor("blocks").offset


def test_plain_numbers_are_views_of_the_file(sample):
    file = GGUFFile(sample)
    first, second = file.read("norm"), file.read("norm")
    assert first.data_ptr() == second.data_ptr()
    assert file.read("half", None).dtype == torch.float16


def test_changing_a_read_tensor_does_not_change_the_file(sample):
    before = sample.read_bytes()
    GGUFFile(sample).read("norm").fill_(7)
    assert sample.read_bytes() == before


def test_bfloat16_is_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    values = torch.randn(4, 6).bfloat16()
    raw = values.view(torch.int16).numpy().view(np.uint8)
    writer.add_tensor("w", raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "model.gguf")
    assert torch.equal(file.read("w", torch.bfloat16), values)
    assert torch.equal(file.read("w"), values.float())


def test_a_block_format_limner_cannot_read_is_named_with_those_it_can(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(rows=(row("w", (256,), kind=gguf.GGMLQuantizationType.IQ2_XXS),)))
    file = GGUFFile(path)
    assert file.format("w") == "IQ2_XXS"
    with pytest.raises(ValueError, match=r"'w' is stored as IQ2_XXS.*Q4_1"):
        file.read("w")


def test_a_missing_tensor_is_named(sample):
    with pytest.raises(ValueError, match="no tensor 'nrom'"):
        GGUFFile(sample).read("nrom")


def test_a_file_of_only_a_vocabulary_opens(tmp_path):
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf_bytes(entries=(entry("a", U32, struct.pack("<I", 7)),), data=0))
    assert GGUFFile(path).metadata == {"a": 7}


def one_row(*sizes: int, kind: int = 0, offset: int = 0) -> bytes:
    return gguf_bytes(rows=(row("w", sizes, kind, offset),))


def strings(count: int, *values: bytes) -> bytes:
    value = struct.pack("<IQ", TEXT, count) + b"".join(values)
    return gguf_bytes(entries=(entry("k", ARRAY, value),))


def aligned(value: bytes, kind: int = U32) -> bytes:
    return gguf_bytes(entries=(entry("general.alignment", kind, value),))


HOSTILE = {
    "empty": (b"", "empty"),
    "three bytes": (b"GGU", "ends at 3 bytes"),
    "other magic": (b"GGML" + bytes(100), "starts with"),
    "version 1": (gguf_bytes(version=b"\x01\0\0\0"), "version 1 "),
    "version 4": (gguf_bytes(version=b"\x04\0\0\0"), "version 4 "),
    "big endian": (gguf_bytes(version=b"\0\0\0\x03"), "big-endian"),
    "2^60 tensors": (gguf_bytes(counts=(2**60, 0)), f"number of tensors is {2**60}"),
    "2^60 entries": (gguf_bytes(counts=(0, 2**60)), f"number of metadata entries is {2**60}"),
    "endless key": (gguf_bytes(entries=(struct.pack("<Q", 2**63),)), "length of a metadata key"),
    "endless value": (
        gguf_bytes(entries=(entry("k", TEXT, struct.pack("<Q", 2**62)),)),
        "length of 'k'",
    ),
    "endless array": (
        gguf_bytes(entries=(entry("k", ARRAY, struct.pack("<IQ", U32, 2**61)),)),
        f"length of 'k' is {2**61}",
    ),
    "2^60 strings": (strings(2**60), f"length of 'k' is {2**60}"),
    "one string too long": (strings(2, text("a"), struct.pack("<Q", 2**40)), "inside string 1 of"),
    "array too deep": (
        gguf_bytes(entries=(entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9),)),
        "unknown type 9",
    ),
    "unknown value type": (gguf_bytes(entries=(entry("k", 77, b""),)), "unknown type 77"),
    "key twice": (gguf_bytes(entries=(entry("k", 0, b"a"), entry("k", 0, b"b"))), "'k' twice"),
    "not UTF-8": (gguf_bytes(entries=(entry("k", TEXT, b"\x01" + bytes(7) + b"\xff"),)), "UTF-8"),
    "array not UTF-8": (strings(1, b"\x01" + bytes(7) + b"\xff"), "'k' is not UTF-8"),
    "alignment 0": (aligned(bytes(4)), "general.alignment is 0"),
    "alignment 3": (aligned(b"\x03\0\0\0"), "general.alignment is 3"),
    "alignment in words": (aligned(text("32"), TEXT), "general.alignment is '32'"),
    "tensor past the end": (one_row(1000), "'w' needs 4064"),
    "huge offset": (one_row(1, offset=2**63), "ends at 320 bytes"),
    "misaligned": (one_row(1, offset=4), "offset 4, no multiple of 32"),
    "five dimensions": (one_row(1, 1, 1, 1, 1), "5 dimensions"),
    "2^31 dimensions": (gguf_bytes(rows=(text("w") + b"\0\0\0\x80",)), f"{2**31} dimensions"),
    "overflowing shape": (one_row(2**62, 2**62, 2**62), "ends at"),
    "product that wraps to 0": (one_row(2**32, 2**32), "ends at"),
    "empty dimension": (one_row(0, 3), "not whole blocks"),
    "part of a block": (one_row(33, kind=2), "whole blocks of 32"),
    "unknown tensor type": (one_row(1, kind=999), "unknown type 999"),
    "tensor twice": (gguf_bytes(rows=(row("w", (1,)), row("w", (1,), offset=32))), "'w' twice"),
    "overlap": (
        gguf_bytes(rows=(row("a", (16,)), row("b", (1,), offset=32))),
        "'b' starts at byte 128, inside tensor 'a' which ends at 160",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_one_clear_line(tmp_path, case):
    content, message = HOSTILE[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        GGUFFile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_as_long_as_the_file_does_not_flood_the_terminal(tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(gguf_bytes(rows=(row("x" * 1_000_000, (1000,)),)))
    with pytest.raises(CorruptFileError) as caught:
        GGUFFile(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files and MAP_NORESERVE")
def test_a_file_larger_than_memory_opens(tmp_path):
    path = tmp_path / "huge.gguf"
    rows = (row("huge", (1 << 18, 1 << 20)), row("small", (2,), offset=1 << 40))
    path.write_bytes(gguf_bytes(rows=rows, data=0))
    os.truncate(path, (1 << 40) + 4096)
    file = GGUFFile(path)
    assert file.shape("huge") == (1 << 20, 1 << 18)
    assert file.read("small").tolist() == [0, 0]


def test_a_truncated_file_names_the_tensor_and_both_sizes(sample):
    content = sample.read_bytes()
    sample.write_bytes(content[:-40])
    with pytest.raises(CorruptFileError, match=r"ends at \d+ bytes but tensor 'half' needs \d+"):
        GGUFFile(sample)


@contextmanager
def memory_limit(extra: int):
    """Any allocation beyond `extra` bytes fails, where the system can be told so."""
    if sys.platform != "linux":
        yield
        return
    with open("/proc/self/statm") as status:
        used = int(status.read().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def changed(content: bytes, changes: list[tuple[int, int]], length: int) -> bytes:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    return bytes(damaged[: length % (len(damaged) + 1)])


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.sampled_from([0, 1, 4, 8, 127, 128, 255])), max_size=4
    ),
    cut=st.one_of(st.just(-1), st.integers(0, 1 << 20)),
)
def test_random_damage_is_read_or_refused_but_never_worse(sample, changes, cut):
    path = sample.with_name("damaged.gguf")
    path.write_bytes(changed(sample.read_bytes(), changes, cut))
    with memory_limit(1 << 30):
        try:
            file = GGUFFile(path)
        except (CorruptFileError, FileNotFoundError):
            return
        for name in file.names():
            if file.format(name) in {"F32", "F16", "Q4_1"}:
                file.read(name)


def write_parts(folder, count=3):
    writer = gguf.GGUFWriter(
        folder / "model.gguf", "llama", split_max_tensors=2, dry_run=False, small_first_shard=False
    )
    for number in range(2 * count):
        writer.add_tensor(f"w{number}", np.full((2, 4), number, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


def test_a_model_in_parts_is_read_as_one(tmp_path):
    parts = write_parts(tmp_path)
    assert len(parts) == 3
    for given_part in parts:
        file = GGUFFile(given_part)
        assert sorted(file.names()) == [f"w{n}" for n in range(6)]
        assert file.metadata["general.architecture"] == "llama"
        assert [file.read(f"w{n}")[0, 0].item() for n in range(6)] == list(range(6))


def test_a_missing_part_is_named(tmp_path):
    parts = write_parts(tmp_path)
    parts[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(parts[1].name)} is missing"):
        GGUFFile(parts[0])


def test_a_renamed_part_is_refused(tmp_path):
    parts = write_parts(tmp_path)
    with pytest.raises(CorruptFileError, match="one part of 3"):
        GGUFFile(parts[0].rename(tmp_path / "mine.gguf"))


def test_parts_of_different_models_are_refused(tmp_path):
    parts = write_parts(tmp_path)
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(CorruptFileError, match=r"split\.no and split\.count are"):
        GGUFFile(parts[0])
