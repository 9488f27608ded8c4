import json
import math

import pytest
import torch
from tokenizers import AddedToken

from limner.config import read_settings
from limner.data.preparing import prepare
from limner.data.sources import text_source
from limner.language_model import load
from limner.models.counting import count_parameters
from limner.objectives.vocabulary import SENTINEL
from limner.tokenizers import Tokenizer
from limner.training.dial import derive
from limner.training.pretraining import PretrainSettings, assemble, open_corpora
from tests.families import bert, t5
from tests.tokenizers.samples import byte_level_engine
from tests.training.runs import losses

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


def tokenizer():
    engine = byte_level_engine()
    names = ["<mask>", *[SENTINEL.format(n) for n in range(20)]]
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    roles = {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<s>"}
    return Tokenizer(engine, roles=roles)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts").write_text("\n".join(f"number {n} is not {n + 1}." for n in range(150)))
    prepare(text_source(folder / "texts", unit="line"), tokenizer(), folder / "tokens")
    return folder / "tokens"


def settings(data, folder, *words, **values):
    data = list(map(str, data)) if isinstance(data, list) else str(data)
    plain = {"data": data, "folder": str(folder), "measure_peak": False}
    plain |= {"rows": 4, "steps": 3, "length": 16, "validation": 0.1, "model": SMALL}
    return read_settings(PretrainSettings, None, words, **(plain | values))


def run(*arguments, **values):
    trainer, derived = assemble(settings(*arguments, **values))
    trainer.fit()
    return trainer, derived


def test_a_run_ends_in_a_model_that_limner_loads(data, tmp_path):
    run(data, tmp_path)
    model = load(tmp_path / "model")
    assert model.generate("number", max_tokens=4, temperature=0).tokens
    assert losses(tmp_path)[0][1] == pytest.approx(math.log(model.config.vocabulary), abs=0.1)


def test_training_goes_on_from_a_model(data, tmp_path):
    run(data, tmp_path / "1", steps=30, optimizer={"rate": 1e-2})
    run(data, tmp_path / "2", model=str(tmp_path / "1" / "model"))
    assert losses(tmp_path / "2")[0][1] < losses(tmp_path / "1")[0][1] - 1


ENCODER = bert(max_position_embeddings=32, num_hidden_layers=1)
MODELS = {
    "next_token": SMALL,
    "prefix": SMALL,
    "masked": ENCODER | {"architectures": ["BertForMaskedLM"]},
    "replaced": ENCODER
    | {"model_type": "electra", "embedding_size": 42, "architectures": ["ElectraForPreTraining"]},
    "span_corruption": t5(num_layers=1, num_decoder_layers=1),
    "denoising": t5(num_layers=1, num_decoder_layers=1),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_objective_trains_and_resumes(data, tmp_path, kind):
    options = {"model": MODELS[kind], "objective": {"kind": kind}, "save_every": 1}
    straight, _ = run(data, tmp_path / "1", **options, steps=3)
    interrupted, _ = assemble(settings(data, tmp_path / "2", **options, steps=3))
    interrupted.log.listeners = (lambda event: stop_at_2(interrupted, event),)
    interrupted.fit()
    resumed, _ = run(data, tmp_path / "2", **options, steps=3)
    assert losses(tmp_path / "1") == losses(tmp_path / "2")
    weights = zip(straight.trained.parameters(), resumed.trained.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def stop_at_2(trainer, event):
    trainer.stopping = event["event"] == "step" and event["step"] == 2


def test_a_student_learns_from_a_teacher(data, tmp_path):
    run(data, tmp_path / "teacher")
    goal = {"kind": "distillation", "teacher": str(tmp_path / "teacher" / "model"), "share": 0.9}
    run(data, tmp_path / "student", objective=goal)
    event = (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()[1]
    assert {"loss", "soft", "hard"} <= json.loads(event).keys()


def test_folders_are_mixed_and_validated_apart(data, tmp_path):
    trainer, _ = run([data, data], tmp_path, weights=[3.0, 1.0])
    assert trainer.stream.limits.tolist() == [0.75, 1.0]
    parts = open_corpora(settings(data, tmp_path))
    whole = len(parts.train[0]) + len(parts.validation[0])
    assert len(parts.validation[0]) == round(0.1 * whole)
    apart = open_corpora(settings(data, tmp_path, validation_data=str(data)))
    assert len(apart.train[0]) == len(apart.validation[0]) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "no model: give depth=4, or model.model_type"),
        ({"model": {"hidden_size": 8}}, "model.num_attention_heads: missing"),
        ({"model": "gpt3"}, "no model 'gpt3': neither a folder nor a shape"),
        ({"length": 64}, "length=64 is more than the model's context of 32 tokens"),
        (
            {"objective": {"kind": "masked"}},
            "kind=masked does not fit this llama model: next_token",
        ),
        ({"objective": {"kind": "distillation"}}, "objective.teacher: missing"),
        ({"depth": 2, "model": "gpt2"}, "depth=2 makes a new model and model=gpt2 names another"),
        ({"weights": [1.0]}, None),
        ({"tokens": 100}, "tokens=100 needs depth"),
        ({"samples": ["a b c d " * 9]}, "samples: one has .* tokens and the model's context is 32"),
        ({"model": ENCODER, "samples": ["a"], "objective": {"kind": "masked"}}, "only a decoder"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(data, tmp_path, changes, message):
    if message is None:
        assemble(settings(data, tmp_path, **changes))
        return
    with pytest.raises(ValueError, match=message) as raised:
        assemble(settings(data, tmp_path, **changes))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


# The dial


def test_depth_derives_everything(data, tmp_path):
    chosen = read_settings(
        PretrainSettings,
        None,
        ["depth=2", "tokens=6000", "model.hidden_size=32", "rows=5", "length=8"],
        data=str(data),
        folder=str(tmp_path),
        measure_peak=False,
    )
    trainer, derived = assemble(chosen)
    assert derived is not None
    config = trainer.network.config
    assert (config.width, len(config.blocks), config.context) == (32, 2, 8)
    assert trainer.settings.rows == 5
    assert trainer.settings.steps == 150
    assert trainer.settings.optimizer.rate == derived.rate
    assert count_parameters(trainer.network) == derived.parameters
    lines = dict(line.split(maxsplit=1) for line in derived.lines())
    assert lines["steps"] == "150"
    assert lines["model.num_hidden_layers"] == "2"
    assert lines["(tokens)"] == "6,000"


def test_the_laws_of_the_dial():
    derived = derive(12, {"vocab_size": 50257}, {})
    assert derived.model["hidden_size"] == 768
    assert derived.model["num_attention_heads"] == 12
    assert derived.parameters == pytest.approx(123.6e6, rel=0.02)
    assert derived.tokens == pytest.approx(20 * derived.parameters, rel=0.01)
    computation = 6 * derived.parameters * 20 * derived.parameters
    assert derived.rows * 1024 == pytest.approx(0.2920 * computation**0.3271, rel=0.01)
    assert derived.rate == pytest.approx(0.3118 * computation**-0.125, rel=0.03)
