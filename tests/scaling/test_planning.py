import pytest

from limner.models.counting import count_parameters, on_meta
from limner.models.families import find_family
from limner.scaling.fit import Known, fit_runs, read_law, write_fit
from limner.scaling.laws import PUBLISHED
from limner.scaling.planning import Hardware, plan
from tests.scaling.planted import planted

PRINTED, AGAIN = (Known(PUBLISHED[name], []) for name in ("chinchilla", "besiroglu"))
#: Operations of Gopher, and of Chinchilla.
GOPHER = 5.76e23


def test_the_printed_law_says_what_its_authors_models_reached():
    # 70B parameters and 1.4T tokens (Chinchilla), 280B and 300B (Gopher), worked out by hand.
    assert float(PRINTED.law.loss(70e9, 1.4e12)) == pytest.approx(1.937, abs=5e-4)
    assert float(PRINTED.law.loss(280e9, 300e9)) == pytest.approx(1.993, abs=5e-4)


def test_twenty_tokens_a_parameter_at_chinchillas_compute():
    size, seen = AGAIN.law.optimum(GOPHER)
    assert 6 * size * seen == pytest.approx(GOPHER)
    assert seen / size == pytest.approx(20, rel=0.1)
    assert AGAIN.law.exponents == pytest.approx((0.513, 0.487), abs=1e-3)


@pytest.mark.parametrize("known", [PRINTED, AGAIN], ids=["printed", "again"])
def test_no_other_split_of_the_compute_is_better(known):
    size, seen = known.law.optimum(1e20)
    least = known.law.loss(size, seen)
    assert all(known.law.loss(size * x, seen / x) > least for x in (0.9, 1.1))
    assert known.law.parameters_for(seen) == pytest.approx(size)
    assert known.law.tokens_for(size) == pytest.approx(seen)


@pytest.mark.parametrize("computation", [1e17, 1e20, GOPHER])
def test_a_plan_is_a_model_that_can_be_trained(computation):
    found = plan(AGAIN, computation=computation)
    fields = found.model.model
    built = on_meta(find_family("llama").read_config(fields))
    assert count_parameters(built) == found.model.parameters
    assert found.model.parameters == pytest.approx(found.best_parameters, rel=0.1)
    assert found.computation == pytest.approx(computation, rel=0.01)
    assert fields["hidden_size"] == 64 * fields["num_attention_heads"]
    assert found.memory.weights == 4 * found.model.parameters
    assert found.memory.optimizer == 8 * found.model.parameters
    best = AGAIN.law.loss(found.best_parameters, found.best_tokens)
    assert found.loss == pytest.approx(float(best), rel=2e-3)


def test_the_size_for_a_text_and_the_text_for_a_size():
    by_tokens = plan(AGAIN, tokens=1.4e12)
    assert by_tokens.best_parameters == pytest.approx(AGAIN.law.parameters_for(1.4e12))
    assert by_tokens.model.tokens == pytest.approx(1.4e12, rel=1e-4)
    by_size = plan(AGAIN, parameters=by_tokens.best_parameters)
    assert by_size.best_tokens == pytest.approx(1.4e12)
    assert by_size.model.model == by_tokens.model.model


def test_hours_and_cost():
    # 8 devices of 8e14 operations a second at 40%: an hour is 9.216e18.
    cluster = Hardware(peak=8e14, utilisation=0.4, devices=8, price=2.0)
    assert cluster.speed * 3600 == pytest.approx(9.216e18)
    assert cluster.hours(9.216e19) == pytest.approx(10)
    assert cluster.cost(9.216e19) == pytest.approx(160)
    assert Hardware(peak=1e12).cost(1e15) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "0 things to go by: give one of compute"),
        ({"computation": 1e18, "tokens": 1e9}, "2 things to go by"),
        ({"tokens": 0.0}, "0 leaves nothing to plan"),
        ({"computation": float("nan")}, "nan leaves nothing to plan"),
        ({"computation": 1e12}, "a layer 64 wide with a vocabulary of 32,000 has 2,"),
    ],
)
def test_what_cannot_be_planned(given, message):
    with pytest.raises(ValueError, match=message):
        plan(AGAIN, **given)


def test_a_law_goes_to_its_file_and_comes_back_with_its_doubts(tmp_path):
    fit = fit_runs(planted(AGAIN.law, noise=0.01), resamples=30)
    write_fit(fit, tmp_path / "laws")
    known = read_law(str(tmp_path / "laws"))
    assert known == Known(fit.additive, fit.resamples)
    found = plan(known, computation=1e20)
    assert found.interval is not None
    assert found.interval[0] < float(AGAIN.law.loss(found.model.parameters, found.model.tokens))
    assert found.interval[0] < found.loss < found.interval[1]
    assert plan(AGAIN, computation=1e20).interval is None


def test_laws_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="did you mean 'chinchilla'"):
        read_law("chinchila")
    (tmp_path / "law.json").write_text('{"additive": {"E": 1}}', encoding="utf-8")
    with pytest.raises(ValueError, match="not what `limner scale fit` writes"):
        read_law(str(tmp_path))
