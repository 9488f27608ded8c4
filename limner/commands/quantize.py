"""`limner quantize`: write a model with fewer bits a weight, and say what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.convert import refuse_to_overwrite, refuse_to_replace
from limner.commands.terminal import progress_bar, read_text, remark

if TYPE_CHECKING:
    from limner.checkpoints.checkpoint import Checkpoint
    from limner.checkpoints.quantized import Grid
    from limner.evaluation.perplexity import Perplexity
    from limner.models.network import Network
    from limner.quantization.calibration import Texts
    from limner.quantization.methods import Method, Weights
    from limner.tokenizers import Tokenizer

Report = Callable[[str, int, int], None]

#: The layout of each method's folder, unless another is asked for.
OWN_LAYOUT = {
    "rtn": "compressed-tensors",
    "fp8": "compressed-tensors",
    "gptq": "gptq",
    "awq": "awq",
    "outliers": "limner_outliers",
}


class Command(CommandSettings):
    """Write a model with fewer bits a weight, and say what that costs.

    A folder has the form that transformers and vLLM read (but for method=outliers), a .gguf file
    that of llama.cpp; limner computes with the few bits as they are. Size, bits a weight,
    perplexity before and after, and time are printed. The matrices within the blocks are rounded.
    In a folder the token vectors, the head and the norms stay 16-bit floats; in a GGUF file the
    token vectors and the head get 8 bits.
    """

    positional: ClassVar[tuple[str, ...]] = ("model", "target")

    model: str
    """the model: a folder, a .gguf file, or a name"""
    target: Path
    """the folder to write, made if missing, or the .gguf file"""
    method: Literal["rtn", "fp8", "gptq", "awq", "outliers"] = "gptq"
    """gptq makes later weights of a row correct earlier errors, awq gives inputs that matter finer
    steps, rtn only rounds and needs no texts, fp8 rounds to floats of 8 bits with a scale for each
    row, for GPUs, outliers keeps the largest inputs' weights in float (LLM.int8)"""
    bits: Literal[4, 8] | None = None
    """bits a weight; 4 if not given, for outliers and fp8 8"""
    group: int | None = Field(default=32, ge=32)
    """inputs that share a scale: 32, 64, 128 ..., or null for a whole row"""
    symmetric: bool | None = None
    """zero stands in the middle of each group's numbers; if not given, at 8 bits and in
    compressed-tensors, whose zeros transformers does not read; in a GGUF file 4 bits are Q4_0 with
    it and Q4_1 without"""
    layout: Literal["auto", "gptq", "awq", "compressed-tensors", "gguf"] = "auto"
    """how the target is laid out; auto is gguf if it ends in .gguf, else as the method's inventors
    do, compressed-tensors for rtn"""
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
    """write into a folder that is not empty, or over a file; a model that is there is replaced"""


def run(settings: Command) -> None:
    """Quantise, write, and print what became of it."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.checkpoint import open_checkpoint

    layout = choose_layout(settings)
    method = choose_method(settings, layout)
    with progress_bar() as bar:
        report: Report = bar or (lambda stage, done, total: None)
        checkpoint = open_checkpoint(resolve(settings.model, partial(report, "downloading")))
        network = checkpoint.network(progress=partial(report, "loading"))
        tokenizer, texts = checkpoint.tokenizer(), find_texts(settings, method)
        check(network, tokenizer, layout, method.grid)
        measured = partial(measure, settings, tokenizer=tokenizer, texts=texts, report=report)
        before, started = measured(network), time.monotonic()
        weights = quantize(settings, method, network, tokenizer, texts, report)
        seconds = time.monotonic() - started
        network = write(network, weights, settings.target, layout, method.grid, tokenizer)
        after = measured(network)
    for line in summary(checkpoint, settings.target, weights, seconds):
        remark(line)
    for line in comparison(before, after):
        remark(line)
    print(settings.target)


def choose_layout(settings: Command) -> str:
    """The layout of the target; ValueError if it cannot be written there."""
    target = settings.target
    own = "gguf" if target.suffix == ".gguf" else OWN_LAYOUT[settings.method]
    layout = own if settings.layout == "auto" else settings.layout
    if layout == "gguf":
        refuse_to_replace(target, settings.force)
    elif target.suffix == ".gguf":
        raise ValueError(f"layout={layout} is that of a folder: leave it out to write '{target}'")
    else:
        refuse_to_overwrite(target, settings.force)
    return layout


def choose_method(settings: Command, layout: str) -> Method:
    """The method and the grid that the settings ask for; ValueError if they do not go together."""
    from limner.checkpoints.quantized import FLOAT8_GRID, Grid
    from limner.quantization.methods import Method

    if settings.method == "fp8":
        check_float8(settings, layout)
        return Method("fp8", FLOAT8_GRID)
    bits = settings.bits or (8 if settings.method == "outliers" else 4)
    if settings.method == "outliers" and layout != OWN_LAYOUT["outliers"]:
        raise ValueError(
            f"layout={layout} has no place for method=outliers: leave it out and name a folder"
        )
    # transformers does not open compressed-tensors with zeros (5.23).
    symmetric = bits == 8 or layout == "compressed-tensors"
    symmetric = symmetric if settings.symmetric is None else settings.symmetric
    minimum = layout == "gguf" and bits == 4 and not symmetric
    grid = Grid(bits, settings.group, symmetric, minimum)
    return Method(settings.method, grid, threshold=settings.threshold)


def check_float8(settings: Command, layout: str) -> None:
    """ValueError if the settings ask for what method=fp8 does not do."""
    if layout != OWN_LAYOUT["fp8"]:
        raise ValueError(
            f"layout={layout} has no place for method=fp8: leave it out and name a folder"
        )
    other = {
        "bits": settings.bits == 4,
        "group": settings.group is not None and "group" in settings.model_fields_set,
        "symmetric": settings.symmetric is False,
    }
    for name, asked in other.items():
        if asked:
            raise ValueError(f"method=fp8 has 8 bits and a scale for each row: leave {name} out")


def check(network: Network, tokenizer: Tokenizer, layout: str, grid: Grid) -> None:
    """ValueError unless what is asked for can be written, before the work is done."""
    from limner.checkpoints.gguf_writing import check_gguf
    from limner.models.encoder import Encoder
    from limner.quantization.saving import check_layout

    if layout != "gguf":
        check_layout(network, [], layout, grid)
        return
    if grid.bits == 8 and not grid.symmetric:
        raise ValueError("GGUF files hold 8 bits without zeros: leave symmetric=false out")
    if grid.group != 32:
        raise ValueError("GGUF files have groups of 32: leave group out")
    if isinstance(network, Encoder):
        raise ValueError(
            "a GGUF file of an encoder says how it pools, which only limner convert writes: "
            "use it with --format Q8_0"
        )
    check_gguf(network, tokenizer)


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


def write(
    network: Network,
    weights: Weights,
    target: Path,
    layout: str,
    grid: Grid,
    tokenizer: Tokenizer,
) -> Network:
    """Write the target; the network as it stands there.

    In a GGUF file token vectors and head are rounded too, so what it computes is asked of the file.
    """
    from limner.checkpoints.checkpoint import open_checkpoint
    from limner.checkpoints.gguf_writing import STORED, save_gguf
    from limner.quantization.saving import save_quantized

    if layout != "gguf":
        save_quantized(network, weights, target, layout, grid, tokenizer)
        return network
    save_gguf(network, target, tokenizer, STORED)
    return open_checkpoint(target).network(weights="stored")


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


def summary(checkpoint: Checkpoint, target: Path, weights: Weights, seconds: float) -> list[str]:
    """Sizes, bits and time, a line each."""
    from limner.checkpoints.disk import megabytes

    stored = sum(weight.stored_bits for weight in weights.values())
    numbers = sum(weight.numbers for weight in weights.values())
    return [
        f"rounded      {len(weights)} matrices, {numbers / 1e6:,.1f} million weights, "
        f"{stored / numbers:.3f} bits each",
        f"size         {megabytes(size_of(checkpoint.path))} before, "
        f"{megabytes(size_of(target))} after",
        f"time         {seconds:,.0f} s",
    ]


def size_of(model: Path) -> int:
    """Bytes of a model's weights, or of the file that holds them."""
    files = [model] if model.is_file() else model.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


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
