"""`limner quantize`: write a model with fewer bits a weight, and say what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.convert import refuse_to_overwrite
from limner.commands.terminal import progress_bar, read_text, remark

if TYPE_CHECKING:
    from limner.checkpoints.checkpoint import Checkpoint
    from limner.evaluation.perplexity import Perplexity
    from limner.models.network import Network
    from limner.quantization.calibration import Texts
    from limner.quantization.methods import Method, Weights
    from limner.tokenizers import Tokenizer

Report = Callable[[str, int, int], None]

#: The layout of each method's folder, unless another is asked for.
OWN_LAYOUT = {
    "rtn": "compressed-tensors",
    "gptq": "gptq",
    "awq": "awq",
    "outliers": "limner_outliers",
}


class Command(CommandSettings):
    """Write a model with fewer bits a weight, and say what that costs.

    The folder has the form that transformers and vLLM read (but for method=outliers); limner
    computes with the few bits as they are. Size, bits a weight, perplexity before and after, and
    time are printed. The matrices within the blocks are rounded; the token vectors, the head and
    the norms stay 16-bit floats.
    """

    positional: ClassVar[tuple[str, ...]] = ("model", "folder")

    model: str
    """the model: a folder, a .gguf file, or a name"""
    folder: Path
    """the folder to write, made if missing"""
    method: Literal["rtn", "gptq", "awq", "outliers"] = "gptq"
    """gptq makes later weights of a row correct earlier errors, awq gives inputs that matter finer
    steps, rtn only rounds and needs no texts, outliers keeps the largest inputs' weights in float
    (LLM.int8)"""
    bits: Literal[4, 8] | None = None
    """bits a weight; 4 if not given, for outliers 8"""
    group: int | None = Field(default=32, ge=32)
    """inputs that share a scale: 32, 64, 128 ..., or null for a whole row"""
    symmetric: bool | None = None
    """zero stands in the middle of each group's numbers; if not given, at 8 bits and in
    compressed-tensors, whose zeros transformers does not read"""
    layout: Literal["auto", "gptq", "awq", "compressed-tensors"] = "auto"
    """how the folder is laid out; auto is as the method's inventors do, compressed-tensors for
    rtn"""
    calibration: str = "topics"
    """texts that show the layers their inputs: files, folders, globs, `topics` (Python's language
    reference) or `python` (its standard library)"""
    rows: int = Field(default=64, ge=1)
    """pieces of the calibration texts to use"""
    length: int = Field(default=512, ge=1)
    """tokens of a piece"""
    threshold: float = Field(default=6.0, gt=0)
    """for outliers: inputs ever as large as this keep float weights"""
    text: Path | None = None
    """a text to measure perplexity on; each eighth of the calibration texts, kept out of the
    calibration, if not given"""
    measure: int = Field(default=8192, ge=0)
    """tokens of it to measure on; 0 measures nothing"""
    force: bool = False
    """write into a folder that is not empty; a model that is there is replaced"""


def run(settings: Command) -> None:
    """Quantise, write, and print what became of it."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.checkpoint import open_checkpoint
    from limner.quantization.saving import check_layout, save_quantized

    refuse_to_overwrite(settings.folder, settings.force)
    layout = OWN_LAYOUT[settings.method] if settings.layout == "auto" else settings.layout
    method = choose_method(settings, layout)
    with progress_bar() as bar:
        report: Report = bar or (lambda stage, done, total: None)
        checkpoint = open_checkpoint(resolve(settings.model, partial(report, "downloading")))
        network = checkpoint.network(progress=partial(report, "loading"))
        check_layout(network, [], layout, method.grid)
        tokenizer, texts = checkpoint.tokenizer(), find_texts(settings, method)
        measured = partial(measure, settings, tokenizer=tokenizer, texts=texts, report=report)
        before, started = measured(network), time.monotonic()
        weights = quantize(settings, method, network, tokenizer, texts, report)
        seconds = time.monotonic() - started
        save_quantized(network, weights, settings.folder, layout, method.grid, tokenizer)
        after = measured(network)
    for line in summary(checkpoint, settings.folder, weights, seconds):
        remark(line)
    for line in comparison(before, after):
        remark(line)
    print(settings.folder)


def choose_method(settings: Command, layout: str) -> Method:
    """The method and the grid that the settings ask for; ValueError if they do not go together."""
    from limner.checkpoints.quantized import Grid
    from limner.quantization.methods import Method

    bits = settings.bits or (8 if settings.method == "outliers" else 4)
    if settings.method == "outliers" and settings.layout != "auto":
        raise ValueError(f"layout={settings.layout} has no place for method=outliers: leave it out")
    # transformers does not open compressed-tensors with zeros (5.23).
    symmetric = bits == 8 or layout == "compressed-tensors"
    symmetric = symmetric if settings.symmetric is None else settings.symmetric
    grid = Grid(bits, settings.group, symmetric)
    return Method(settings.method, grid, threshold=settings.threshold)


def find_texts(settings: Command, method: Method) -> Texts:
    """Texts to calibrate on and to measure on, read only if they are needed."""
    from limner.quantization.calibration import Texts, split_texts

    needed = method.needs_texts or (settings.measure and settings.text is None)
    texts = split_texts(settings.calibration) if needed else Texts([], [])
    if settings.text is None:
        return texts
    return texts._replace(held_out=[read_text(None, settings.text, "text")])


def quantize(
    settings: Command,
    method: Method,
    network: Network,
    tokenizer: Tokenizer,
    texts: Texts,
    report: Report,
) -> Weights:
    """Round the network's matrices, on calibration texts if the method wants them."""
    from limner.quantization.calibration import rows
    from limner.quantization.methods import quantize_network

    length = min(settings.length, network.config.context)
    shown = rows(texts.seen, tokenizer, settings.rows, length) if method.needs_texts else []
    return quantize_network(network, method, shown, partial(report, "quantizing"))


def measure(
    settings: Command, network: Network, tokenizer: Tokenizer, texts: Texts, report: Report
) -> Perplexity | None:
    """The perplexity of the texts to measure on; None for what is no decoder, or if not wanted."""
    from limner.evaluation.perplexity import perplexity
    from limner.models.decoder import Decoder
    from limner.nn.packed import set_activation_bits

    if not settings.measure or not isinstance(network, Decoder):
        return None
    set_activation_bits(network, 16)  # as a model is loaded, so that weights alone are judged
    text, limit = "\n\n".join(texts.held_out), settings.measure
    return perplexity(network, tokenizer, text, limit=limit, progress=partial(report, "measuring"))


def summary(checkpoint: Checkpoint, folder: Path, weights: Weights, seconds: float) -> list[str]:
    """Sizes, bits and time, a line each."""
    from limner.checkpoints.disk import megabytes

    stored = sum(weight.stored_bits for weight in weights.values())
    numbers = sum(weight.numbers for weight in weights.values())
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    source = checkpoint.path
    files = [source] if source.is_file() else list(source.glob("*.safetensors"))
    return [
        f"rounded      {len(weights)} matrices, {numbers / 1e6:,.1f} million weights, "
        f"{stored / numbers:.3f} bits each",
        f"size         {megabytes(sum(file.stat().st_size for file in files))} before, "
        f"{megabytes(size)} after",
        f"time         {seconds:,.0f} s",
    ]


def comparison(before: Perplexity | None, after: Perplexity | None) -> list[str]:
    """Perplexity before and after."""
    if before is None or after is None:
        return []
    change = after.perplexity / before.perplexity - 1
    return [
        f"perplexity   {before.perplexity:.3f} before, {after.perplexity:.3f} after "
        f"({change:+.2%}), on {before.tokens:,} tokens",
        f"bits a byte  {before.bits_per_byte:.4f} before, {after.bits_per_byte:.4f} after",
    ]
