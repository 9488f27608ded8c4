"""The settings of a training run."""

from __future__ import annotations

from pydantic import Field

from limner.config import Settings
from limner.training.optimizers import OptimizerSettings
from limner.training.parallel import ParallelSettings
from limner.training.precision import Precision
from limner.training.schedules import ScheduleSettings


class TrainingSettings(Settings):
    """How a network is trained."""

    steps: int = Field(default=1000, ge=1)
    """how often the parameters are moved"""
    rows: int = Field(default=32, ge=1)
    """rows of the data in a step, of all processes together"""
    micro_rows: int | None = Field(default=None, ge=1)
    """rows that a process computes at once, if memory does not hold all; the result is the same"""
    seed: int = Field(default=0, ge=0)
    """of the weights, the order of the data and all noise"""
    optimizer: OptimizerSettings = OptimizerSettings()
    """what moves the parameters"""
    schedule: ScheduleSettings = ScheduleSettings()
    """how the learning rate rises and falls"""
    parallel: ParallelSettings = ParallelSettings()
    """how processes share the work, if torchrun or Ray started several"""
    clip: float | None = Field(default=1.0, gt=0)
    """the longest gradient; a longer one is scaled down; null: none is"""
    balance_speed: float = Field(default=0.001, ge=0)
    """how far a step moves the bias of each expert towards an even load, in mixtures that have one
    (Wang et al. 2024)"""
    average: float | None = Field(default=None, gt=0, lt=1)
    """keep a moving average of the weights that forgets this slowly (such as 0.999), and validate,
    sample and end with it"""
    recompute: bool = False
    """work activations out again in the backward pass rather than keep them (gradient
    checkpointing, Chen et al. 2016): a third slower, a fraction of the memory"""
    precision: Precision = "auto"
    """of matrix products; auto is bfloat16 where the hardware has such products (on a CPU for
    networks of 4 million parameters or more, as casting takes its time too), float32 elsewhere;
    float8 (limner.training.float8) has to be asked for, and needs a GPU that multiplies it"""
    validate_every: int | None = Field(default=None, ge=1)
    """steps between validations; not given: twenty in a run"""
    patience: int | None = Field(default=None, ge=1)
    """stop after so many validations without a better one, and keep the best model"""
    sample_every: int | None = Field(default=None, ge=1)
    """steps between samples; not given: as often as validation"""
    samples: tuple[str, ...] = ()
    """beginnings that the model continues while it is trained"""
    sample_tokens: int = Field(default=64, ge=1)
    """tokens of a sample, if the context has room for so many"""
    save_every: int | None = Field(default=None, ge=1)
    """steps between checkpoints; not given: as often as takes no more than 2% of the time"""
    keep: int = Field(default=2, ge=1)
    """checkpoints to keep"""
    measure_peak: bool = True
    """measure at the start how fast this machine multiplies matrices, to say what share is used"""
    tensorboard: bool = False
    """write TensorBoard's event files too"""
