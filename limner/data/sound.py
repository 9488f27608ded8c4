"""Sound: from WAV files to the spectrograms that models of speech read.

N samples, M mel bands, F frames.
"""

from __future__ import annotations

import math
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True)
class SpectrogramConfig:
    """Samples a second, mel bands, samples of a Fourier window and between two, and seconds."""

    rate: int = 16_000
    bands: int = 80
    window: int = 400
    hop: int = 160
    seconds: int = 30

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> SpectrogramConfig:
        """From the fields of a preprocessor_config.json."""
        names = {
            "rate": "sampling_rate",
            "bands": "feature_size",
            "window": "n_fft",
            "hop": "hop_length",
            "seconds": "chunk_length",
        }
        return cls(**{ours: fields[theirs] for ours, theirs in names.items() if theirs in fields})

    @property
    def samples(self) -> int:
        """How many samples a spectrogram covers."""
        return self.seconds * self.rate


def read_wav(path: Path) -> tuple[Tensor, int]:
    """The samples (N,) of a WAV file, between -1 and 1, channels averaged; and samples a second.

    Raises ValueError if it is no WAV file of whole numbers, FileNotFoundError if there is none.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"'{path}' is no WAV file that can be read here: {error}") from error
    values = _numbers(data, width).reshape(-1, channels).mean(1)
    return torch.from_numpy(values).float(), rate


def _numbers(data: bytes, width: int) -> numpy.ndarray[Any, numpy.dtype[numpy.float64]]:
    """Samples of `width` bytes as numbers between -1 and 1."""
    if width == 1:  # the only unsigned one
        return numpy.frombuffer(data, numpy.uint8) / 128.0 - 1.0
    octets = numpy.frombuffer(data, numpy.uint8).reshape(-1, width)
    whole = numpy.zeros((len(octets), 4), numpy.uint8)
    whole[:, 4 - width :] = octets  # the highest bytes, so that the sign is right
    return whole.view("<i4")[:, 0] / 2.0**31


def resample(samples: Tensor, rate: int, wanted: int) -> Tensor:
    """Samples (N,) taken `rate` times a second, as if taken `wanted` times a second.

    A windowed sinc filter over 64 of the coarser steps keeps what is below the lower half rate.
    """
    if rate == wanted:
        return samples
    cutoff = min(1.0, wanted / rate) * 0.98
    count = math.ceil(len(samples) * wanted / rate)
    places = torch.arange(count, dtype=torch.float64) * (rate / wanted)
    reach = math.ceil(32 / min(1.0, wanted / rate))
    # In pieces: the filter needs as many numbers for each sample as it reaches.
    pieces = (_filter(samples, part, cutoff, reach) for part in places.split(1 << 14))
    return torch.cat(list(pieces))


def _filter(samples: Tensor, places: Tensor, cutoff: float, reach: int) -> Tensor:
    """What stands at `places` between the samples."""
    near = places.floor().long()[:, None] + torch.arange(-reach, reach + 1)  # (N, taps)
    distance = near - places[:, None]
    window = torch.cos(distance * (math.pi / (2 * (reach + 1)))) ** 2
    weights = torch.sinc(distance * cutoff) * cutoff * window
    inside = (near >= 0) & (near < len(samples))
    return (samples[near.clamp(0, len(samples) - 1)] * inside * weights).sum(1).float()


def log_mel(samples: Tensor, config: SpectrogramConfig) -> Tensor:
    """The spectrogram (M, F) of samples (N,): log10 of power in mel bands, as Whisper's.

    Silence follows shorter samples. Values are cut off 8 below the loudest, then (x + 4) / 4.
    Raises ValueError if there are more samples than a spectrogram covers.
    """
    if len(samples) > config.samples:
        seconds = len(samples) / config.rate
        raise ValueError(f"the sound takes {seconds:.1f} s but at most {config.seconds} s fit")
    padded = torch.nn.functional.pad(samples, (0, config.samples - len(samples)))
    window = torch.hann_window(config.window)
    waves = torch.stft(padded, config.window, config.hop, window=window, return_complex=True)
    power = waves[:, :-1].abs() ** 2  # (window / 2 + 1, F)
    bands = mel_filters(config) @ power
    logarithm = bands.clamp(min=1e-10).log10()
    return (torch.maximum(logarithm, logarithm.max() - 8.0) + 4.0) / 4.0


def mel_filters(config: SpectrogramConfig) -> Tensor:
    """Weights (M, window / 2 + 1) of frequencies in each band: triangles of equal area.

    Their corners are evenly spaced on Slaney's mel scale: linear to 1000 Hz, logarithmic above.
    """
    highest = min(8000.0, config.rate / 2)
    frequencies = torch.linspace(0, config.rate // 2, config.window // 2 + 1, dtype=torch.float64)
    corners = _hertz(torch.linspace(0, _mel(highest), config.bands + 2, dtype=torch.float64))
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise, fall = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
    triangles = torch.minimum(rise, fall).clamp(min=0)
    return (triangles * (2.0 / (high - low))).float()


#: Slaney's scale: mels of a hertz below 1000 Hz, the mel there, and mels of an e-fold above.
LINEAR, BREAK, STEEP = 3 / 200, 15.0, 27 / math.log(6.4)


def _mel(hertz: float) -> float:
    return hertz * LINEAR if hertz < 1000 else BREAK + math.log(hertz / 1000) * STEEP


def _hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < BREAK, mel / LINEAR, 1000 * torch.exp((mel - BREAK) / STEEP))
