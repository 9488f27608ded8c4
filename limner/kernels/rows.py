"""What is done to each token by itself: normalisation, embedding, rotary positions.

N tokens, D width, H heads, W head width, R rotated part of the head width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from limner.kernels.library import call, compiled, contiguous, empty, operator, rows_of, runs_on
from limner.kernels.packing import PackedWeight, bits_of, inputs_of, scale_form, unpack


def rms_norm(hidden: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """`hidden` (..., D) by its root mean square, times `weight` (D) (Zhang and Sennrich 2019)."""
    return _normalise(hidden, weight, None, epsilon, False)


def layer_norm(
    hidden: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> Tensor:
    """`hidden` (..., D) less its mean, by its deviation, times `weight`, plus `bias` (Ba 2016)."""
    return _normalise(hidden, weight, bias, epsilon, True)


def _normalise(
    hidden: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, centred: bool
) -> Tensor:
    given = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    if not runs_on(*given):
        return normalise_reference(hidden, weight, bias, epsilon, centred)
    result: Tensor = torch.ops.limner.normalise(hidden, weight, bias, epsilon, centred)
    return result


def normalise_reference(
    hidden: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, centred: bool
) -> Tensor:
    """Both normalisations in plain PyTorch."""
    width = (hidden.shape[-1],)
    if centred:
        return functional.layer_norm(hidden, width, weight, bias, epsilon)
    if weight is None or weight.dtype == hidden.dtype:
        return functional.rms_norm(hidden, width, weight, epsilon)
    # In mixed precision. PyTorch would do the same, and warn that it does.
    wide = torch.promote_types(hidden.dtype, weight.dtype)
    return functional.rms_norm(hidden.to(wide), width, weight.to(wide), epsilon).to(hidden.dtype)


@operator(
    "normalise(Tensor hidden, Tensor? weight, Tensor? bias, float epsilon, bool centred) -> Tensor",
    lambda hidden, *_: hidden.new_empty(hidden.shape),
    normalise_reference,
)
def _normalise_rows(
    hidden: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, centred: bool
) -> Tensor:
    rows = rows_of(hidden)
    output = empty(tuple(hidden.shape), hidden)
    call(
        "normalise", rows, rows.stride(0), weight, bias, epsilon, int(centred), output, *rows.shape
    )
    return output


def embed(tokens: Tensor, table: Tensor | PackedWeight) -> Tensor:
    """Rows of `table` (V, D) for `tokens` (...), int64, as float32 (..., D).

    Raises ValueError for a number outside the table; in a replayed plan such a row is NaN.
    """
    if isinstance(table, PackedWeight):
        if compiled() and tokens.device.type == "cpu":
            packed: Tensor = torch.ops.limner.embed_packed(
                tokens, table.codes, table.scales, table.outputs
            )
            return packed
        return embed_packed_reference(tokens, table.codes, table.scales, table.outputs)
    if runs_on(table):
        plain: Tensor = torch.ops.limner.embed(tokens, table)
        return plain
    return functional.embedding(tokens, table)


def embed_packed_reference(tokens: Tensor, codes: Tensor, scales: Tensor, outputs: int) -> Tensor:
    """`embed` of a packed table in plain PyTorch."""
    blocks, place = torch.unique(tokens // 16, return_inverse=True)
    rows = unpack(codes[blocks], scales[blocks], 16 * len(blocks))
    return rows[place * 16 + tokens % 16]


def _check_tokens(tokens: Tensor, vocabulary: int) -> None:
    if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < vocabulary):
        raise ValueError(
            f"tokens from {int(tokens.min())} to {int(tokens.max())} are not all in a table of "
            f"{vocabulary} rows"
        )


@operator(
    "embed(Tensor tokens, Tensor table) -> Tensor",
    lambda tokens, table: table.new_empty((*tokens.shape, table.shape[1])),
    functional.embedding,
)
def _embed(tokens: Tensor, table: Tensor) -> Tensor:
    _check_tokens(tokens, table.shape[0])
    tokens, table = contiguous(tokens), contiguous(table)
    output = empty((*tokens.shape, table.shape[1]), table)
    call("lookup", table, tokens, output, tokens.numel(), *table.shape)
    return output


@operator(
    "embed_packed(Tensor tokens, Tensor codes, Tensor scales, SymInt outputs) -> Tensor",
    lambda tokens, codes, scales, outputs: scales.new_empty(
        (*tokens.shape, inputs_of(scales)), dtype=torch.float32
    ),
    embed_packed_reference,
)
def _embed_packed(tokens: Tensor, codes: Tensor, scales: Tensor, outputs: int) -> Tensor:
    _check_tokens(tokens, outputs)
    tokens, width = contiguous(tokens), inputs_of(scales)
    output = empty((*tokens.shape, width), codes)
    call(
        "lookup_packed", codes, scales, bits_of(codes, scales), scale_form(scales), tokens, output,
        tokens.numel(), outputs, width,
    )  # fmt: skip
    return output


def rotary_angles(positions: Tensor, frequency: Tensor, gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines (..., R/2) of `positions` (...), int64, times `frequency` (R/2).

    `frequency` may also be (..., R/2), each position having its own.
    """
    if not runs_on(frequency) or frequency.dim() > 1:
        return rotary_angles_reference(positions, frequency, gain)
    cosine, sine = torch.ops.limner.rotary_angles(positions, frequency, gain)
    return cosine, sine


def rotary_angles_reference(
    positions: Tensor, frequency: Tensor, gain: float
) -> tuple[Tensor, Tensor]:
    """`rotary_angles` in plain PyTorch."""
    angle = positions[..., None].float() * frequency
    return angle.cos() * gain, angle.sin() * gain


def _angles_fake(positions: Tensor, frequency: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, frequency.shape[0])
    return frequency.new_empty(shape), frequency.new_empty(shape)


@operator(
    "rotary_angles(Tensor positions, Tensor frequency, float gain) -> (Tensor, Tensor)",
    _angles_fake,
    rotary_angles_reference,
)
def _rotary_angles(positions: Tensor, frequency: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    positions, frequency = contiguous(positions), contiguous(frequency)
    shape = (*positions.shape, frequency.shape[0])
    cosine, sine = empty(shape, frequency), empty(shape, frequency)
    call("angles", positions, frequency, gain, cosine, sine, positions.numel(), len(frequency))
    return cosine, sine


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool = False) -> Tensor:
    """Turn each pair of the first R numbers of `heads` (..., H, W) (Su et al. 2021).

    `cosine`, `sine` are (..., R/2), one row a token. Number i is paired with i + R/2, or with
    `interleaved` 2i with 2i + 1. The other W - R numbers stay as they are.
    """
    if runs_on(heads, cosine, sine):
        result: Tensor = torch.ops.limner.rotate(heads, cosine, sine, interleaved)
        return result
    return rotate_reference(heads, cosine, sine, interleaved)


def rotate_reference(heads: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """`rotate` in plain PyTorch."""
    width = 2 * cosine.shape[-1]
    turned, rest = heads[..., :width], heads[..., width:]
    cosine, sine = cosine[..., None, :], sine[..., None, :]  # (..., 1, R/2)
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, -1)
    pair = (first * cosine - second * sine, second * cosine + first * sine)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((turned, rest), -1)


@operator(
    "rotate(Tensor heads, Tensor cosine, Tensor sine, bool interleaved) -> Tensor",
    lambda heads, *_: heads.new_empty(heads.shape),
    rotate_reference,
)
def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    count, width = heads.shape[-2:]
    rows = rows_of(heads.flatten(-2))  # (N, H * W)
    cosine, sine = contiguous(cosine), contiguous(sine)
    output = empty(tuple(heads.shape), heads)
    call(
        "rotate", rows, rows.stride(0), cosine, sine, int(interleaved), output, rows.shape[0],
        count, width, cosine.shape[-1],
    )  # fmt: skip
    return output
