"""Which reader a path needs, decided by what is in the file and not by what it is called."""

from pathlib import Path

from limner.checkpoints.gguf import MAGIC, GGUFFile
from limner.checkpoints.llama2c import Llama2CFile, is_llama2c
from limner.checkpoints.pickles import NAMES, PickledTensors, PickleRefusedError, is_pickle
from limner.checkpoints.safetensors import INDEX, WEIGHTS, SafetensorsFile, SafetensorsFolder
from limner.checkpoints.tensors import TensorSource


def open_tensors(path: str | Path, allow_pickle: bool = False) -> TensorSource:
    """The tensors in a GGUF, safetensors or llama2.c file, or a folder of safetensors.

    Args:
        path: the file or folder.
        allow_pickle: also open pickled weights, with `weights_only`.

    Raises:
        CorruptFileError: the file contradicts itself.
        FileNotFoundError: nothing is there, or a folder has no weights.
        PickleRefusedError: it is a pickle and `allow_pickle` is off.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, allow_pickle)
    with path.open("rb") as file:
        start = file.read(4)
    if start == MAGIC:
        return GGUFFile(path)
    if is_llama2c(path):
        return Llama2CFile(path)
    if is_pickle(path):
        return _open_pickle(path, allow_pickle)
    return SafetensorsFile(path)


def _open_folder(folder: Path, allow_pickle: bool) -> TensorSource:
    if any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        return SafetensorsFolder(folder)
    for name in NAMES:
        if (folder / name).is_file():
            return _open_pickle(folder / name, allow_pickle)
    ggufs = sorted(folder.glob("*.gguf"))
    if ggufs:
        return GGUFFile(ggufs[0])
    raise FileNotFoundError(
        f"{folder} holds no weights: expected {WEIGHTS}, {INDEX} or a .gguf file"
    )


def _open_pickle(path: Path, allow_pickle: bool) -> TensorSource:
    if not allow_pickle:
        raise PickleRefusedError(path)
    return PickledTensors(path)
