import pickle

import pytest
import torch

from limner.checkpoints.gguf import GGUFFile
from limner.checkpoints.opening import open_tensors
from limner.checkpoints.pickles import PickledTensors, PickleRefusedError
from limner.checkpoints.safetensors import SafetensorsFile, SafetensorsFolder, write_safetensors
from limner.checkpoints.tensors import CorruptFileError
from tests.checkpoints.gguf_samples import write_gguf

WEIGHTS = {"w": torch.arange(6.0).view(2, 3), "half": torch.ones(2).bfloat16()}


class Bomb:
    def __reduce__(self):
        return (print, ("the pickle ran",))


def test_content_decides_and_not_the_name(tmp_path):
    write_safetensors(WEIGHTS.items(), tmp_path / "folder")
    renamed = write_gguf(tmp_path / "weights.bin")
    assert isinstance(open_tensors(renamed), GGUFFile)
    assert isinstance(open_tensors(tmp_path / "folder"), SafetensorsFolder)
    assert isinstance(open_tensors(tmp_path / "folder" / "model.safetensors"), SafetensorsFile)


def test_a_folder_with_a_gguf_file_opens(tmp_path):
    write_gguf(tmp_path / "model.gguf")
    assert isinstance(open_tensors(tmp_path), GGUFFile)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "w.pt", "w.pth", "w.safetensors", "w.gguf"])
def test_a_pickle_is_refused_under_any_name_until_allowed(tmp_path, name, zipped):
    path = tmp_path / name
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PickleRefusedError, match=r"safetensors.*allow_pickle=True"):
        open_tensors(path)
    source = open_tensors(path, allow_pickle=True)
    assert torch.equal(source.read("w"), WEIGHTS["w"])
    assert source.format("half") == "BF16"
    assert source.shape("w") == (2, 3)


def test_a_folder_of_pickles_is_refused_and_safetensors_are_preferred(tmp_path):
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    with pytest.raises(PickleRefusedError, match=r"pytorch_model\.bin"):
        open_tensors(tmp_path)
    assert isinstance(open_tensors(tmp_path, allow_pickle=True), PickledTensors)
    write_safetensors(WEIGHTS.items(), tmp_path)
    assert isinstance(open_tensors(tmp_path), SafetensorsFolder)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_an_allowed_pickle_does_not_run(tmp_path, capsys, zipped):
    path = tmp_path / "bomb.pt"
    torch.save({"w": Bomb()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CorruptFileError, match="not a pickle of weights"):
        open_tensors(path, allow_pickle=True)
    assert "the pickle ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"w": 3}, {3: torch.ones(1)}])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CorruptFileError, match="other than tensors"):
        open_tensors(tmp_path / "w.pt", allow_pickle=True)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04garbage", pickle.dumps({"a": 1}, protocol=2)[:-3]]
)
def test_a_damaged_pickle_is_refused(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CorruptFileError):
        open_tensors(tmp_path / "w.pt", allow_pickle=True)


def test_an_empty_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        open_tensors(tmp_path)
