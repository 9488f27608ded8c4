import math
import sys

import numpy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from limner.training.curves import smooth
from tests.tokenizers.samples import byte_level
from tests.training.runs import FIELDS, events, trainer, validation


def curves(folder):
    """What TensorBoard reads."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in accumulator.Scalars(name)] for name in names}


def assert_tensorboard_shows_the_log(folder):
    shown = curves(folder / "tensorboard")
    for name, kind in (("loss/train", "step"), ("loss/validation", "validation")):
        logged = [(event["step"], event["loss"]) for event in events(folder, kind)]
        assert [step for step, _ in shown[name]] == [step for step, _ in logged]
        assert [v for _, v in shown[name]] == pytest.approx([v for _, v in logged], abs=1e-5)
    assert len(shown["step/rate"]) == len(shown["speed/memory"]) == 12


def test_tensorboard_shows_what_the_log_says(tmp_path):
    trainer(tmp_path, tensorboard=True, validation=validation).fit()
    assert_tensorboard_shows_the_log(tmp_path)


def test_tensorboard_shows_a_resumed_run_once_and_whole(tmp_path):
    def die(event):
        if event["event"] == "step" and event["step"] == 8:
            raise RuntimeError("killed")

    options = {"tensorboard": True, "validation": validation}
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, **options, listeners=(die,)).fit()
    trainer(tmp_path, **options).fit()
    assert_tensorboard_shows_the_log(tmp_path)


def test_samples_stand_in_tensorboard(tmp_path):
    fields = FIELDS | {"vocab_size": byte_level().vocabulary_size}
    options = {"tokenizer": byte_level(), "samples": ("the",), "steps": 1}
    trainer(tmp_path, tensorboard=True, fields=fields, **options).fit()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert accumulator.Tags()["tensors"] == ["samples/text_summary"]


def test_a_run_ends_with_a_picture(tmp_path):
    trainer(tmp_path, validation=validation).fit()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_the_extras_a_run_ends_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    trainer(tmp_path / "run", steps=1).fit()
    assert (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "curves.png").exists()
    with pytest.raises(ValueError, match=r"pip install 'limner\[track\]'"):
        trainer(tmp_path, tensorboard=True)


def test_smoothing_by_hand():
    values = numpy.array([1.0, math.nan, 3.0, 5.0] * 25)  # the mean of the last two
    smoothed = smooth(values)
    assert smoothed[:2] == pytest.approx([1.0, math.nan], nan_ok=True)
    assert smoothed[-4:].tolist() == [3.0, 1.0, 3.0, 4.0]
