"""Sentence encoders on disk: the folders of the sentence-transformers library.

`modules.json` lists the parts: a transformer, a pooling, and perhaps projections and a division by
the length, each with a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from limner.checkpoints.checkpoint import Checkpoint, open_checkpoint, read_json, save_folder
from limner.checkpoints.gguf_pooling import read_pooling
from limner.checkpoints.opening import open_tensors
from limner.checkpoints.safetensors import write_safetensors
from limner.kernels import Activation
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.sentence import (
    Dense,
    DenseConfig,
    Mode,
    NormalizeConfig,
    PoolingConfig,
    SentenceEncoder,
    StepConfig,
)
from limner.tokenizers import Tokenizer

#: Their names of ways of pooling, the old switches and the new names, in the order of the vectors.
SWITCHES: dict[str, Mode] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_length",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
NAMES: dict[str, Mode] = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_length",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
BENDS: dict[str, Activation | None] = {
    "Tanh": "tanh",
    "Identity": None,
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}


@dataclass(frozen=True)
class SentenceCheckpoint:
    """A sentence encoder, opened but not read.

    `longest` is the longest text in tokens, the special ones counted, that it was made for.
    """

    path: Path
    checkpoint: Checkpoint
    pooling: PoolingConfig
    steps: tuple[StepConfig, ...]
    folders: tuple[Path, ...] = field(repr=False)
    longest: int

    def network(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> SentenceEncoder:
        """The encoder with its weights."""
        network = self.checkpoint.network(dtype, device, progress)
        if isinstance(network, EncoderDecoder):
            network = network.encoder
        encoder = SentenceEncoder(network, self.pooling, self.steps)
        for step, folder in zip(encoder.steps, self.folders, strict=True):
            if isinstance(step, Dense):
                source = open_tensors(folder)
                step.linear.load_state_dict(
                    {name.removeprefix("linear."): source.read(name) for name in source.names()}
                )
        return encoder.to(device, dtype).eval()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights."""
        return self.checkpoint.tokenizer()


def is_sentence_encoder(path: Path) -> bool:
    """Whether a folder describes a sentence encoder."""
    return (path / "modules.json").is_file()


def open_sentence_encoder(path: Path) -> SentenceCheckpoint:
    """Open a sentence-transformers folder, or any encoder's, whose vectors are then averaged.

    A GGUF file may say that they are pooled otherwise.

    Raises FileNotFoundError if there is nothing, ValueError if a part is unknown.
    """
    if not is_sentence_encoder(path):
        checkpoint = open_checkpoint(path)
        longest = checkpoint.config.context
        pooling = read_pooling(checkpoint.fields)
        return SentenceCheckpoint(path, checkpoint, pooling, (), (), longest)
    parts = dict(_parts(path))
    names = list(parts.values())
    if names[:2] != ["Transformer", "Pooling"]:
        found = ", ".join(names)
        raise ValueError(f"'{path}' has the parts {found}: Transformer and Pooling come first")
    (first, second, *folders) = parts
    checkpoint = open_checkpoint(first if (first / "config.json").exists() else path)
    steps = tuple(_read_step(folder, parts[folder]) for folder in folders)
    longest = min(_stated_length(first), checkpoint.config.context)
    pooling = _read_pooling(read_json(second / "config.json"))
    return SentenceCheckpoint(path, checkpoint, pooling, steps, tuple(folders), longest)


def _parts(path: Path) -> Iterator[tuple[Path, str]]:
    """Each part's folder and the last word of its type."""
    for module in json.loads((path / "modules.json").read_text(encoding="utf-8")):
        folder = (path / module["path"]).resolve()
        if not folder.is_relative_to(path.resolve()):
            raise ValueError(
                f"'{path / 'modules.json'}' names '{module['path']}' outside its folder"
            )
        yield folder, module["type"].rpartition(".")[2]


def _stated_length(folder: Path) -> int:
    """The longest text by sentence_bert_config.json; without one, no limit."""
    path = folder / "sentence_bert_config.json"
    return (read_json(path).get("max_seq_length") if path.is_file() else None) or 2**62


def _read_pooling(fields: dict[str, Any]) -> PoolingConfig:
    named = fields.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise ValueError(f"unknown pooling_mode '{unknown[0]}': known are {', '.join(NAMES)}")
        return PoolingConfig(tuple(NAMES[name] for name in names))
    modes = tuple(mode for switch, mode in SWITCHES.items() if fields.get(switch))
    if not modes:
        raise ValueError(f"no pooling mode is on: switch on one of {', '.join(SWITCHES)}")
    return PoolingConfig(modes)


def _read_step(folder: Path, kind: str) -> StepConfig:
    if kind == "Normalize":
        return NormalizeConfig()
    if kind != "Dense":
        raise ValueError(f"unknown part '{kind}' in '{folder.parent}': known are Dense, Normalize")
    fields = read_json(folder / "config.json")
    bend = fields["activation_function"].rpartition(".")[2]
    if bend not in BENDS:
        raise ValueError(f"unknown activation_function '{bend}': known are {', '.join(BENDS)}")
    inputs, outputs = fields["in_features"], fields["out_features"]
    return DenseConfig(inputs, outputs, fields.get("bias", True), BENDS[bend])


def save_sentence_encoder(
    encoder: SentenceEncoder, folder: Path, tokenizer: Tokenizer | None, longest: int
) -> None:
    """Write a folder that the sentence-transformers library opens."""
    save_folder(encoder.network, folder, tokenizer)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest})
    width = {"word_embedding_dimension": encoder.network.config.width}
    _write_json(folder / "1_Pooling" / "config.json", width | _write_pooling(encoder.pooling))
    for number, step in enumerate(encoder.steps, start=2):
        parts.append((f"{number}_{type(step).__name__}", type(step).__name__))
        if isinstance(step, Dense):
            _save_dense(step, folder / parts[-1][0])
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(parts)
    ]
    _write_json(folder / "modules.json", listed)


def _write_pooling(config: PoolingConfig) -> dict[str, Any]:
    """Switches, which all versions of the library read, or else names in their order."""
    switches = {switch: mode in config.modes for switch, mode in SWITCHES.items()}
    if config == _read_pooling(switches):
        return switches
    names = {mode: name for name, mode in NAMES.items()}
    return {"pooling_mode": [names[mode] for mode in config.modes]}


def _save_dense(step: Dense, folder: Path) -> None:
    config = step.config
    names = {bend: name for name, bend in BENDS.items()}
    where = "linear" if config.activation is None else "activation"
    fields = {
        "in_features": config.inputs,
        "out_features": config.outputs,
        "bias": config.bias,
        "activation_function": f"torch.nn.modules.{where}.{names[config.activation]}",
    }
    _write_json(folder / "config.json", fields)
    tensors = [(f"linear.{name}", t.detach()) for name, t in step.linear.named_parameters()]
    write_safetensors(iter(tensors), folder)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
