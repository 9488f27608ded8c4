"""Fits and plans for people, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy

from limner.scaling.fit import Fit, Known
from limner.scaling.laws import intervals
from limner.scaling.planning import Hardware, Plan
from limner.scaling.runs import Run
from limner.training.doctor.resources import gigabytes, spelled


def report_fit(fit: Fit, held_out: list[Run]) -> Iterator[str]:
    """The laws, how well they fit, and what they say of runs that were held out."""
    yield f"additive law  L = E + A / N^alpha + B / D^beta  ({len(fit.runs)} runs)"
    sure = intervals(fit.resamples) if fit.resamples else {}
    for name, value in asdict(fit.additive).items():
        between = f"  ({sure[name][0]:.4g} to {sure[name][1]:.4g})" if name in sure else ""
        yield f"  {name:6} {value:<10.4g}{between}"
    errors = numpy.abs(fit.errors(fit.runs))
    worst = fit.runs[int(errors.argmax())].name
    yield f"  error  {numpy.median(errors):.2%} median, {errors.max():.2%} largest ({worst})"
    size, seen = fit.additive.exponents
    yield f"  best   N grows as C^{size:.3f}, D as C^{seen:.3f}"
    yield from report_powers(fit)
    yield from report_budgets(fit)
    yield from report_held_out(fit, held_out)


def report_powers(fit: Fit) -> Iterator[str]:
    """Kaplan's laws."""
    yield "power laws"
    for name, power in fit.powers.items():
        yield f"  L({name})   ({power.scale:.3g} / {name})^{power.exponent:.4f}"
    joint = fit.joint
    if joint is None:
        yield "  L(N,D) these runs do not determine it: it knows no irreducible loss"
        return
    yield (
        f"  L(N,D) ((n_c / N)^(alpha_n / alpha_d) + d_c / D)^alpha_d with n_c {joint.n_c:.3g}, "
        f"d_c {joint.d_c:.3g}, alpha_n {joint.alpha_n:.4f}, alpha_d {joint.alpha_d:.4f}"
    )


def report_budgets(fit: Fit) -> Iterator[str]:
    """The best size of each budget, if there are any."""
    flop = fit.isoflop
    if not flop.parabolas and not flop.refused:
        return
    yield "budgets of equal compute"
    for parabola in flop.parabolas:
        yield (
            f"  {parabola.computation:.2e}  best N {parabola.parameters:,.0f}, "
            f"D {parabola.tokens:,.0f}, loss {parabola.loss:.4f}"
        )
    yield from (f"  {reason}" for reason in flop.refused)
    if flop.exponent is not None:
        yield f"  best   N = {flop.factor:.3g} C^{flop.exponent:.3f}"


def report_held_out(fit: Fit, held_out: list[Run]) -> Iterator[str]:
    """What the additive law expects of runs that it has not seen."""
    if not held_out:
        return
    yield "held out"
    known = Known(fit.additive, fit.resamples)
    for run, error in zip(held_out, fit.errors(held_out), strict=True):
        expected, between = known.expect(run.parameters, run.tokens)
        yield (
            f"  {run.name}  loss {run.loss:.4f}, expected {spread(expected, between)}: {error:+.2%}"
        )


def spread(value: float, between: tuple[float, float] | None) -> str:
    """A loss, and the interval it should be in."""
    return f"{value:.4f}" + ("" if between is None else f" ({between[0]:.4f} to {between[1]:.4f})")


def plan_facts(plan: Plan, hardware: Hardware | None) -> dict[str, Any]:
    """A plan in plain numbers: bytes, hours, nats a token."""
    return {
        "optimum": {"parameters": plan.best_parameters, "tokens": plan.best_tokens},
        "model": plan.model.model,
        "parameters": plan.model.parameters,
        "tokens": plan.model.tokens,
        "computation": plan.computation,
        "loss": plan.loss,
        "interval": plan.interval,
        "memory": asdict(plan.memory),
        "hours": None if hardware is None else hardware.hours(plan.computation),
        "cost": None if hardware is None else hardware.cost(plan.computation),
        "command": plan.command(),
    }


def report_plan(plan: Plan, hardware: Hardware | None) -> Iterator[str]:
    """The model, its tokens, and what to expect."""
    model, ratio = plan.model, plan.best_tokens / plan.best_parameters
    yield (
        f"optimum     {plan.best_parameters:.4g} parameters, {plan.best_tokens:.4g} tokens "
        f"({ratio:.1f} a parameter)"
    )
    fields = model.model
    yield (
        f"model       {model.parameters:,} parameters: {fields['num_hidden_layers']} layers, width "
        f"{fields['hidden_size']}, {fields['num_attention_heads']} heads"
    )
    yield f"tokens      {model.tokens:,}"
    yield f"compute     {plan.computation:.3g} operations"
    yield f"loss        {spread(plan.loss, plan.interval)}"
    kept = plan.memory.weights + plan.memory.gradients + plan.memory.optimizer
    yield (
        f"memory      {gigabytes(kept)} for weights, gradients and AdamW's averages; "
        "limner doctor measures activations"
    )
    if hardware is not None:
        yield f"time        {spelled(hardware.hours(plan.computation))}"
        cost = hardware.cost(plan.computation)
        yield from () if cost is None else [f"cost        {cost:,.2f}"]
    yield plan.command()
