"""Each check of the doctor says OK of a sound run, and FAIL or WARN of the fault that it is for."""

from dataclasses import replace

import numpy
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from limner.data.batches import batches
from limner.data.corpus import corpus_of_documents
from limner.data.preparing import prepare
from limner.data.rows import PackedRows, in_order
from limner.data.sources import text_source
from limner.models.families import find_family
from limner.nn.state import Documents
from limner.objectives.masked import MaskedTokens
from limner.tokenizers import ChatTemplate, Tokenizer
from limner.training.doctor import learning, resources, texts
from limner.training.doctor.diagnosis import Limits, diagnose
from limner.training.pretraining import assemble
from limner.training.speed import memory_used
from tests.objectives.batches import network
from tests.tokenizers.samples import CHATML, byte_level, byte_level_engine
from tests.training.runs import FIELDS
from tests.training.runs import settings as tiny_settings
from tests.training.runs import trainer as tiny_trainer
from tests.training.test_pretraining import MODELS, SMALL, settings, tokenizer

LINES = [f"number {n} is not {n + 1} but it is {n}." for n in range(150)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts").write_text("\n".join(LINES))
    prepare(text_source(folder / "texts", unit="line"), tokenizer(), folder / "tokens")
    return folder / "tokens"


def report(chosen, limits=None):
    return {check.name: check for check in diagnose(chosen, limits or Limits())}


@pytest.mark.parametrize("kind", MODELS)
def test_a_sound_run_passes(data, tmp_path, kind):
    chosen = settings(data, tmp_path / "run", model=MODELS[kind], objective={"kind": kind})
    found = report(chosen)
    assert {check.level for check in found.values()} == {"OK"}, found
    assert {"EOS", "BOS", "mask", "packing", "template", "memory", "disk", "hours"} <= found.keys()
    assert not (tmp_path / "run").exists()


# Texts

EOS, BOS = 2, 1


def rows_of(documents, length=6):
    return next(batches(in_order(PackedRows(corpus_of_documents(documents), length)), 100))


def with_beginning():
    """A tokenizer that begins texts with <s>."""
    engine = byte_level_engine()
    begin = engine.token_to_id("<s>")
    engine.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return Tokenizer(engine, roles={"bos_token": "<s>", "eos_token": "</s>"}), begin


def test_documents_that_never_end_fail():
    known = tokenizer()
    end = known.eos_id
    whole, cut = [9, 10, 11, end], [9, 10, 11, 12]
    for documents, level in (
        ([whole] * 3, "OK"),
        ([whole, whole, cut], "WARN"),
        ([cut] * 3, "FAIL"),
    ):
        arrays = [numpy.array(document) for document in documents]
        check = texts.check_end(arrays, rows_of(documents), network(FIELDS), known)
        assert check.level == level, check


def test_an_end_that_is_masked_fails():
    known = tokenizer()
    documents = [[9, 10, known.eos_id]] * 4
    rows = rows_of(documents)
    hidden = replace(rows, weights=rows.weights * (rows.targets != known.eos_id))
    arrays = [numpy.array(document) for document in documents]
    check = texts.check_end(arrays, hidden, network(FIELDS), known)
    assert check.level == "FAIL"
    assert "learnt in 0 of the 4 places" in check.said


@pytest.mark.parametrize(("copies", "level"), [(0, "FAIL"), (1, "OK"), (2, "FAIL")])
def test_the_beginning_stands_once(copies, level):
    known, begin = with_beginning()
    documents = [numpy.array([begin] * copies + [50, 51, 52])] * 3
    assert texts.check_beginning(documents, known).level == level


def test_special_tokens_in_the_middle_are_seen():
    known = tokenizer()
    plain, odd = numpy.arange(50, 60), numpy.array([50, 51, 52, known.eos_id, 53, 54, 55])
    assert texts.check_inside([plain], known).level == "OK"
    assert texts.check_inside([plain, odd], known).level == "WARN"


def test_a_mask_that_crosses_documents_fails(tmp_path):
    rows = rows_of([[7, 8, EOS], [9, 10, EOS]])
    trained = tiny_trainer(tmp_path)
    assert texts.check_mask(rows, trained.objective, trained.network).level == "OK"
    crossing = replace(rows, weights=torch.ones_like(rows.weights))
    assert texts.check_mask(crossing, trained.objective, trained.network).level == "FAIL"
    shifted = replace(rows, targets=rows.tokens)
    assert texts.check_mask(shifted, trained.objective, trained.network).level == "FAIL"
    sparse = replace(rows, documents=torch.arange(6)[None], weights=torch.zeros(1, 6))
    assert texts.check_mask(sparse, trained.objective, trained.network).level == "FAIL"


def test_a_masker_that_hides_special_tokens_fails():
    objective = MaskedTokens(tokenizer())
    end = tokenizer().eos_id
    rows = rows_of([[*range(50, 60), end]] * 4)
    encoder = find_family("bert").read_config(MODELS["masked"] | {"vocab_size": 800}).build()
    assert texts.check_mask(rows, objective, encoder).level == "OK"
    broken = objective.masker.__call__

    class Careless:
        special = objective.masker.special

        def __call__(self, batch):
            masked = broken(batch)
            return masked._replace(chosen=masked.chosen | (batch.tokens == end))

    objective.masker = Careless()  # type: ignore[assignment]
    assert texts.check_mask(rows, objective, encoder).level == "FAIL"


def test_many_epochs_are_a_warning():
    corpora = [corpus_of_documents([[1] * 100])]
    assert texts.check_epochs(400, corpora).level == "OK"
    assert texts.check_epochs(401, corpora).level == "WARN"


@pytest.mark.parametrize(
    ("lines", "level", "said"),
    [
        ([LINES[7]], "FAIL", "1 of 1 texts share 13 tokens"),
        (["and so on: " * 20 + LINES[7]], "WARN", "1 of 1 texts share"),
        (["quite another text that was never written there before, surely not"], "OK", "0 of 1"),
        (["short", "also another text that was never written there before"], "OK", "(1 are too"),
    ],
)
def test_contamination_is_found(data, tmp_path, lines, level, said):
    (tmp_path / "evaluation.txt").write_text("\n".join(lines))
    limits = Limits(against=(str(tmp_path / "evaluation.txt"),))
    check = report(settings(data, tmp_path / "run"), limits)["contamination"]
    assert check.level == level, check
    assert said in check.said


# Networks


def test_a_network_that_ignores_documents_fails(monkeypatch):
    model = network(FIELDS)
    rows = rows_of([[7, 8, EOS], [9, 10, EOS]])
    assert learning.check_packing(model, rows).level == "OK"
    honest = model.forward
    monkeypatch.setattr(model, "forward", lambda tokens, state: honest(tokens, state=Documents()))
    assert learning.check_packing(model, rows).level == "FAIL"


def test_the_template_of_training_is_that_of_serving():
    engine = byte_level()
    assert learning.check_template(engine).level == "OK"
    bad = {
        "differs from what is taught from token": CHATML.replace(
            "'<|im_start|>assistant\n'", "'x'"
        ),
        "which ends no generation": CHATML.replace("<|im_end|>", "<|endoftext|>"),
    }
    for said, template in bad.items():
        changed = Tokenizer(engine.engine, roles=engine.roles, chat_template=ChatTemplate(template))
        check = learning.check_template(changed)
        assert check.level == "FAIL", check
        assert said in check.said


def test_a_model_of_another_tokenizer_fails(data, tmp_path):
    trained, _ = assemble(settings(data, tmp_path / "one"))
    trained.fit()
    known = trained.tokenizer
    model = tmp_path / "one" / "model"
    assert learning.check_tokenizer(model, known, trained.network).level == "OK"
    assert learning.check_tokenizer(model, byte_level(), trained.network).level == "FAIL"
    small = network(FIELDS)
    assert learning.check_tokenizer(None, known, small).level == "FAIL"


def test_a_network_that_is_not_sound_at_the_start_is_seen(data, tmp_path):
    trained, _ = assemble(settings(data, tmp_path))
    rows = texts.some_rows(trained.stream)
    assert learning.check_first_loss(trained, rows, "next_token").level == "OK"
    with torch.no_grad():
        trained.network.get_parameter("norm.weight").mul_(300)
    assert learning.check_first_loss(trained, rows, "next_token").level == "FAIL"


# Resources


def test_memory_counts_what_there_is(tmp_path):
    trained = tiny_trainer(tmp_path, average=0.9)
    trained.step()
    memory = resources.memory_of(trained.trained, trained.settings, 0)
    weights = sum(p.nbytes for p in trained.network.parameters())
    kept = sum(tensor.nbytes for _, tensor in trained.optimizers.tensors() if tensor.ndim)
    assert (memory.weights, memory.gradients, memory.average) == (weights, weights, weights)
    assert memory.optimizer == kept


@pytest.mark.parametrize("kind", ["muon", "adafactor"])
def test_what_each_optimizer_keeps_is_known(tmp_path, kind):
    trained = tiny_trainer(tmp_path, optimizer={"kind": kind, "rate": 1e-3})
    trained.step()
    kept = sum(tensor.nbytes for _, tensor in trained.optimizers.tensors() if tensor.ndim)
    assert resources.optimizer_bytes(trained.trained, trained.settings.optimizer) == kept


def test_activations_are_measured_and_grow_with_rows(tmp_path):
    wide = FIELDS | {"intermediate_size": 512}
    few, many = (tiny_trainer(tmp_path, fields=wide, rows=rows) for rows in (4, 40))
    rows = next(batches(few.stream, 40))
    small, large = (resources.activation_bytes(each, rows) for each in (few, many))
    saved = resources.saved_bytes(many, rows)
    assert large == pytest.approx(saved, rel=0.1)
    assert small < large / 8


def test_a_run_that_is_too_large_fails_before_anything_is_allocated(data, tmp_path):
    giant = SMALL | {"hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 200}
    before = memory_used(torch.device("cpu"))
    found = report(settings(data, tmp_path, model=giant))
    assert found["memory"].level == "FAIL"
    assert "recompute=true" in found["memory"].said
    assert found["disk"].level == "FAIL"
    assert memory_used(torch.device("cpu")) - before < 1e9


def test_time_and_money_run_out(data, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "trial", lambda trainer: (36.0, 0.0))
    chosen = settings(data, tmp_path, steps=200)
    found = report(chosen, Limits(price=3.0))
    assert found["hours"].said.startswith("2.0 h")
    assert found["cost"].said == "6.00 at 3 an hour"
    found = report(chosen, Limits(price=3.0, hours=1.5, budget=5.0))
    assert (found["hours"].level, found["cost"].level) == ("FAIL", "FAIL")


def test_validation_counts_into_the_time():
    chosen = tiny_settings(steps=100, validate_every=40)
    assert resources.whole_hours(chosen, 36.0, 360.0) == pytest.approx(1 + 0.3)
