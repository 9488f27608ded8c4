"""The environment that continuous integration installs is the small one we promise."""

import os
from importlib.metadata import distributions

import pytest
import torch

GPU_PACKAGES = ("nvidia-", "triton", "torchvision")


@pytest.mark.skipif("CI" not in os.environ, reason="other machines may hold any packages")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU needs them")
def test_no_gpu_packages_come_along_to_a_machine_without_one():
    names = sorted(distribution.name.lower() for distribution in distributions())
    assert [name for name in names if name.startswith(GPU_PACKAGES)] == []
