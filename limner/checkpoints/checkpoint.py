"""A model on disk: its config at once, its weights when asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limner.checkpoints.gguf import GGUFFile
from limner.checkpoints.llama2c import Llama2CFile
from limner.checkpoints.opening import open_tensors
from limner.checkpoints.packing import read_packed
from limner.checkpoints.quantized import with_plain_names
from limner.checkpoints.safetensors import write_safetensors
from limner.checkpoints.tensors import TensorSource
from limner.kernels import PackedWeight
from limner.models.families import find_family, find_gguf_family
from limner.models.families.gguf_fields import GGUFFields
from limner.models.network import Network, NetworkConfig, without_contents
from limner.models.translation import Translation
from limner.nn.packed import (
    Packed,
    PackedEmbedding,
    PackedLinear,
    Weights,
    is_vocabulary,
    pack,
    packed_weights,
    replace_layers,
)
from limner.nn.scaled import scaled_weights
from limner.tokenizers import Tokenizer, load_tokenizer, tokenizer_from_gguf

log = logging.getLogger(__name__)

#: Called with (parameters read, parameters in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face folder or a GGUF file, opened but not read."""

    path: Path
    format: str
    config: NetworkConfig
    source: TensorSource
    translations: tuple[Translation, ...]
    fields: Mapping[str, Any] = field(repr=False)
    read_tokenizer: Callable[[], Tokenizer] = field(repr=False)

    def network(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        weights: Weights | None = None,
    ) -> Network:
        """The network with its weights, read tensor by tensor so that never two copies exist.

        With `weights` the matrices become packed layers (`limner.nn.packed`), which kernels compute
        with on the CPU and which cannot be trained. Parameters that the file holds in this very
        `dtype` are views of its memory map, which networks of one checkpoint share.

        Raises ValueError if the file lacks a tensor or one has another shape than the config says.
        """
        with without_contents():
            network = self.config.build()
        if weights is not None:
            replace_layers(network)
        fill(network, self, dtype, device, progress, weights or "float")
        return network.eval()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights."""
        return self.read_tokenizer()


def open_checkpoint(path: Path, allow_pickle: bool = False) -> Checkpoint:
    """Open a Hugging Face folder, a GGUF or a llama2.c file without reading weights.

    `allow_pickle` also opens weights that are pickled, with `weights_only`. Raises
    FileNotFoundError if there is nothing, ValueError if it is neither, pickled or damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"no model at '{path}': give a folder or a .gguf file that exists")
    if path.is_dir() and (path / "config.json").exists():
        return _open_folder(path, allow_pickle)
    source = open_tensors(path, allow_pickle)
    if isinstance(source, GGUFFile | Llama2CFile):
        return _open_gguf(path, source)
    raise ValueError(f"'{path}' has weights but no config.json: give the folder that has both")


def _open_folder(folder: Path, allow_pickle: bool) -> Checkpoint:
    fields = read_json(folder / "config.json")
    if "model_type" not in fields:
        raise ValueError(f"'{folder / 'config.json'}' has no model_type: it describes no model")
    family = find_family(fields["model_type"])
    try:
        config = family.read_config(fields)
    except KeyError as missing:
        raise ValueError(f"'{folder / 'config.json'}' has no field {missing}") from missing
    source = with_plain_names(open_tensors(folder, allow_pickle), folder, fields)
    translations = tuple(family.translations(config))
    prefix = getattr(family, "PREFIX", "")
    if prefix and not any(name.startswith(prefix) for name in source.names()):
        translations = tuple(_without_prefix(rule, prefix) for rule in translations)
    return Checkpoint(
        folder, "folder", config, source, translations, fields, lambda: load_tokenizer(folder)
    )


def _open_gguf(path: Path, file: GGUFFile | Llama2CFile) -> Checkpoint:
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError(f"'{path}' names no architecture: it describes no model")
    family = find_gguf_family(architecture)
    shapes = {name: file.shape(name) for name in file.names()}
    config = family.read_gguf(GGUFFields(file.metadata, shapes, file.read))
    return Checkpoint(
        path,
        "GGUF" if isinstance(file, GGUFFile) else "llama2.c",
        config,
        file,
        tuple(family.gguf_translations(config)),
        file.metadata,
        lambda: tokenizer_from_gguf(file.metadata),
    )


def _without_prefix(rule: Translation, prefix: str) -> Translation:
    """The names of a checkpoint of the base model alone."""
    theirs = tuple(name.removeprefix(prefix) for name in rule.theirs)
    instead = tuple(name.removeprefix(prefix) for name in rule.instead)
    return replace(rule, theirs=theirs, instead=instead)


def fill(
    network: Network,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device | str,
    progress: Progress | None = None,
    weights: Weights = "float",
) -> None:
    """Set the parameters of `network` (made on the meta device) from the checkpoint's tensors.

    `weights` is what becomes of the numbers of packed layers.
    """
    present = set(checkpoint.source.names())
    unused = set(present)
    for number, rule in enumerate(checkpoint.translations, start=1):
        if rule.optional and not present.issuperset(rule.theirs):
            continue
        names = rule.theirs if present.issuperset(rule.theirs) else rule.instead or rule.theirs
        missing = [name for name in names if name not in present]
        if missing:
            raise ValueError(
                f"'{checkpoint.path}' lacks the tensor '{missing[0]}' that its config asks for"
            )
        stored = weights == "stored"
        packed = read_packed(network, checkpoint.source, rule, names) if stored else None
        tensors: Sequence[Tensor | PackedWeight] | None = packed
        if tensors is None:
            tensors = rule.load([checkpoint.source.read(name) for name in names])
        for name, tensor in zip(rule.ours, tensors, strict=True):
            place(network, name, tensor, dtype, device, checkpoint.path, weights)
        unused -= set(names)
        if progress is not None:
            progress(number, len(checkpoint.translations))
    network.tie()
    unset = [name for name, tensor in named_tensors(network).items() if tensor.is_meta]
    unset += [name for name, weight in packed_weights(network) if weight is None]
    if unset:
        network.do_without(unset)
    for name in sorted(unused):
        log.info("%s: tensor '%s' is not used", checkpoint.path, name)


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters, those used in two places under both names, and buffers."""
    parameters: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    return parameters | dict(network.named_buffers())


def named_weights(network: nn.Module) -> dict[str, Tensor | Packed | None]:
    """Parameters, buffers, packed weights and, as floats, those of 8 bits by rows."""
    rows = {name: weight.dequantize() for name, weight in scaled_weights(network)}
    return named_tensors(network) | dict(packed_weights(network)) | rows


def place(
    network: nn.Module,
    name: str,
    tensor: Tensor | PackedWeight,
    dtype: torch.dtype,
    device: torch.device | str,
    path: Path,
    weights: Weights,
) -> None:
    """Put `tensor` where the parameter, buffer or packed weight `name` stands."""
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    if leaf != "weight" or not isinstance(module, PackedLinear | PackedEmbedding):
        assert isinstance(tensor, Tensor)
        set_tensor(network, name, tensor.to(device), dtype, path)
        return
    check_shape(name, tuple(tensor.shape), module.shape, path)
    if isinstance(tensor, PackedWeight):
        module.weight = tensor
    else:
        module.weight = pack(tensor, weights, is_vocabulary(owner))


def check_shape(name: str, shape: tuple[int, ...], says: tuple[int, ...], path: Path) -> None:
    """ValueError if the tensor of `path` for our `name` has another shape than the config says."""
    if shape != says:
        raise ValueError(f"'{path}': {name} has shape {shape} but the config says {says}")


def set_tensor(
    network: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype, path: Path
) -> None:
    """Put `tensor` where the parameter or buffer `name` stands; ValueError if the shapes differ.

    Parameters become `dtype`; buffers keep their own, being few and fine.
    """
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    stands = getattr(module, leaf)
    check_shape(name, tuple(tensor.shape), tuple(stands.shape), path)
    learnt = isinstance(stands, nn.Parameter)
    tensor = tensor.to(dtype if learnt else stands.dtype).contiguous()
    setattr(module, leaf, nn.Parameter(tensor) if learnt else tensor)


def save_folder(
    network: Network,
    folder: Path,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a Hugging Face folder that transformers opens: config, weights, tokenizer.

    Packed weights are written as the floats that they stand for.

    Raises OSError if the disk is full; a good folder that was there before survives.
    """
    config = network.config
    family = find_family(config.family)
    weights = named_weights(network)
    fields = family.write_config(config) | {"dtype": str(network.dtype).removeprefix("torch.")}
    tensors = _their_tensors(family.translations(config), weights)
    write_folder(tensors, fields, folder, tokenizer, max_shard_bytes)


def write_folder(
    tensors: Iterable[tuple[str, Tensor]],
    fields: Mapping[str, Any],
    folder: Path,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a Hugging Face folder of these tensors, with these `fields` of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(tensors, folder, max_shard_bytes)
    fields = dict(fields)
    if tokenizer is not None:
        fields |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        tokenizer.save(folder)
    staged = folder / "config.json.part"
    staged.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    staged.replace(folder / "config.json")


def _their_tensors(
    translations: Iterator[Translation], weights: Mapping[str, Tensor | Packed | None]
) -> Iterator[tuple[str, Tensor]]:
    for rule in translations:
        tensors = rule.save([plain(weights[name]) for name in rule.ours])
        yield from zip(rule.theirs, tensors, strict=True)


def plain(weight: Tensor | Packed | None) -> Tensor:
    """A weight as numbers that any program reads."""
    assert weight is not None
    return weight.detach() if isinstance(weight, Tensor) else weight.dequantize()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; errors name the file."""
    if not path.exists():
        raise FileNotFoundError(f"no '{path.name}' in '{path.parent}': this is no model folder")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"'{path}' holds no object but a {type(fields).__name__}")
    return fields
