"""Objectives that are more than a sum over rows of one network, in two processes as in one."""

from typing import Any

import pytest
import torch
from safetensors import safe_open

from limner.config import read_settings
from limner.data.preparing import prepare
from limner.data.sources import open_source, text_source
from limner.training.checkpoints import snapshots
from limner.training.pretraining import PretrainSettings, assemble
from tests.objectives import test_contrastive as pairs
from tests.training import test_pretraining as texts
from tests.training.runs import losses
from tests.training.test_parallel import KINDS, assert_alike, load_network, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
OBJECTIVES = ("contrastive", "replaced")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Settings of a run of each objective, without its folder."""
    folder = tmp_path_factory.mktemp("data")
    file = pairs.captions(folder / "shapes", 3)
    prepare(open_source(str(file)), pairs.tokenizer(), folder / "pairs")
    (folder / "texts").write_text("\n".join(f"number {n} is not {n + 1}." for n in range(150)))
    prepare(text_source(folder / "texts", unit="line"), texts.tokenizer(), folder / "tokens")
    plain: dict[str, Any] = {
        "measure_peak": False,
        "rows": 6,
        "steps": 6,
        "validate_every": 3,
        "average": 0.9,
    }
    plain |= {"optimizer": {"rate": 1e-3}, "validation": 0.3, "deviation": 0.1}
    goal = {"kind": "contrastive", "images": str(file)}
    more = {"data": str(folder / "pairs"), "model": pairs.FIELDS, "length": 6, "objective": goal}
    model = texts.MODELS["replaced"] | {"num_attention_heads": 2}
    rest = {"data": str(folder / "tokens"), "model": model, "length": 16, "micro_rows": 2}
    rest |= {"objective": {"kind": "replaced"}}
    return {"contrastive": plain | more, "replaced": plain | rest}


@pytest.fixture(scope="module")
def one(commands, tmp_path_factory):
    """The runs in one process."""
    folder = tmp_path_factory.mktemp("one")
    for name, command in commands.items():
        alone(command, folder / name)
    return folder


@pytest.fixture(scope="module")
def two(commands, tmp_path_factory):
    """The runs in two processes, of each kind; stopped and resumed; and stopped."""
    folder = tmp_path_factory.mktemp("two")
    runs = []
    for name, command in commands.items():
        runs += [(folder / f"{name}-{k}", {"kind": k, "command": command}) for k in KINDS]
        again = {"kind": "fsdp", "command": command}
        stopped = again | {"stop_at": 4}
        runs += [(folder / f"{name}-again", stopped), (folder / f"{name}-again", again)]
        runs += [(folder / f"{name}-to-one", stopped)]
    done = processes(*runs)
    assert done.returncode == 0, done.stderr
    return folder


def alone(command, folder):
    settings = read_settings(PretrainSettings, None, (), folder=str(folder), **command)
    trained, _ = assemble(settings)
    trained.fit()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_come_to_the_losses_of_one(one, two, name, kind):
    assert_alike(two / f"{name}-{kind}", one / name)
    assert_alike(two / f"{name}-{kind}", one / name, "validation")
    trained, expected = (load_network(f / "model") for f in (two / f"{name}-{kind}", one / name))
    for key, tensor in expected.named_parameters():
        if not key.endswith("key.bias"):  # attention does not see it, so only rounding moves it
            torch.testing.assert_close(trained.get_parameter(key), tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_go_on_bit_for_bit(two, name):
    assert losses(two / f"{name}-again") == losses(two / f"{name}-fsdp")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_checkpoint_of_two_processes_is_gone_on_with_by_one(commands, one, two, name):
    folder = two / f"{name}-to-one"
    assert snapshots(folder / "checkpoints")[-1].name == "step-00000004"
    alone(commands[name], folder)
    assert_alike(folder, one / name)


def test_a_generator_is_saved_once_and_with_shared_vectors(two):
    newest = snapshots(two / "replaced-fsdp" / "checkpoints")[-1]
    names = set()
    for path in newest.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= {name for name in file.offset_keys() if name.startswith("weights:")}
    assert any(name.startswith("weights:objective.generator.blocks.0.") for name in names)
    assert [name for name in names if name.endswith("tokens.weight")] == [
        "weights:network.embedding.tokens.weight"
    ]
