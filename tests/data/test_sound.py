"""Spectrograms are those of Whisper; sound files are read as they are."""

import math
import struct
import wave
from pathlib import Path

import pytest
import torch
from transformers import WhisperFeatureExtractor

from limner.data.sound import SpectrogramConfig, log_mel, read_wav, resample


@pytest.mark.parametrize(("bands", "seconds"), [(80, 2), (128, 3), (11, 1)])
def test_a_spectrogram_equals_the_reference(bands, seconds):
    count = 16_000 * seconds - 5000
    loudness = torch.linspace(0, 0.3, count)
    samples = torch.randn(count, generator=torch.Generator().manual_seed(1)) * loudness
    reference = WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds)
    want = reference(samples.numpy(), sampling_rate=16_000)["input_features"][0]
    config = SpectrogramConfig.read(reference.to_dict())
    got = log_mel(samples, config)
    assert got.shape == (bands, 100 * seconds)
    torch.testing.assert_close(got, torch.tensor(want), atol=1e-4, rtol=0)


def test_too_much_sound_is_refused():
    with pytest.raises(ValueError, match=r"the sound takes 2\.5 s but at most 2 s fit"):
        log_mel(torch.zeros(40_000), SpectrogramConfig(seconds=2))


def write(path: Path, width: int, channels: int, values: list[float], rate: int = 8000) -> None:
    """A WAV file of whole numbers of `width` bytes."""
    top = 2 ** (8 * width - 1)
    data = b""
    for value in values:
        number = round(value * (top - 1))
        data += (
            struct.pack("<B", number + 128)
            if width == 1
            else number.to_bytes(width, "little", signed=True)
        )
    with wave.open(str(path), "wb") as file:
        file.setsampwidth(width)
        file.setnchannels(channels)
        file.setframerate(rate)
        file.writeframes(data)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_all_widths_are_read(width, tmp_path):
    values = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25]
    write(tmp_path / "x.wav", width, 1, values)
    samples, rate = read_wav(tmp_path / "x.wav")
    assert rate == 8000
    torch.testing.assert_close(samples, torch.tensor(values), atol=2 / 2 ** (8 * width - 1), rtol=0)


def test_channels_are_averaged(tmp_path):
    write(tmp_path / "x.wav", 2, 2, [0.5, -0.5, 1.0, 0.5])
    samples, _ = read_wav(tmp_path / "x.wav")
    torch.testing.assert_close(samples, torch.tensor([0.0, 0.75]), atol=1e-4, rtol=0)


def test_what_is_no_sound_is_refused(tmp_path):
    (tmp_path / "x.wav").write_text("no sound at all")
    with pytest.raises(ValueError, match=r"'.*x\.wav' is no WAV file that can be read here"):
        read_wav(tmp_path / "x.wav")


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_a_tone_stays_a_tone_at_another_rate(rate):
    def tone(count: int, rate: int) -> torch.Tensor:
        return torch.sin(torch.arange(count) * (2 * math.pi * 440 / rate))

    heard = resample(tone(rate, rate), rate, 16_000)
    assert len(heard) == 16_000
    middle = slice(200, -200)
    torch.testing.assert_close(heard[middle], tone(16_000, 16_000)[middle], atol=2e-3, rtol=0)


def test_what_is_too_high_for_a_rate_is_left_out():
    high = torch.sin(torch.arange(48_000) * (2 * math.pi * 11_000 / 48_000))
    assert resample(high, 48_000, 16_000)[200:-200].abs().max() < 0.02  # not an alias at 5 kHz
