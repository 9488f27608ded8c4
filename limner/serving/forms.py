"""What holds an answer to the form that a request asks for."""

from __future__ import annotations

from limner.inference.admission import check_constraint
from limner.inference.constraints import Constraint, Form
from limner.inference.sampling import Sampling
from limner.language_model import LanguageModel


def constraint_of(
    model: LanguageModel, form: Form | None, field: str, sampling: Sampling
) -> Constraint | None:
    """What holds one answer to a form, if there is one.

    Raises ValueError, beginning with the name of the field that asks for it, if it cannot be done.
    """
    try:
        constraint = model.constraint(form)
        ends = frozenset[int]() if sampling.ignore_eos else model.tokenizer.stop_ids
        check_constraint(constraint, ends.union(sampling.stop_tokens))
    except ValueError as error:
        raise ValueError(f"{field} does not work: {error}") from None
    return constraint
