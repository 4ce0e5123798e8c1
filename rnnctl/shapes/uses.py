"""Every parameter of a model, with how often one forward pass uses it."""

from collections.abc import Collection, Sequence

from torch import nn

from rnnctl.errors import InputError, did_you_mean
from rnnctl.models.module_calls import owner_of
from rnnctl.models.parameter_uses import ParameterUse, counts_by_role
from rnnctl.shapes.tensors import Label, Row, module_row

ROOT = "(model)"


def use_rows(uses: Sequence[ParameterUse]) -> tuple[Row, ...]:
    """One record for every parameter."""
    return tuple(_row(each) for each in uses)


def use_scalars(uses: Sequence[ParameterUse]) -> Row:
    """How many parameters there are of every role."""
    return counts_by_role(each.role for each in uses)


def picked_uses(model: nn.Module, uses: Sequence[ParameterUse], only: Collection[str]) -> list[ParameterUse]:
    """Those of the parameters that are asked for.

    Args:
        only: names or patterns of modules or parameters, "" for the whole model.
    Raises:
        InputError: no name, or one that no module and no parameter has, with the nearest.
    """
    if not only:
        raise InputError("only must name at least one module or parameter")
    known = (*dict(model.named_modules()), *(name for each in uses for name in (each.name, *each.also)))
    for pattern in only:
        if pattern and pattern not in known and not any(each.is_among([pattern]) for each in uses):
            names = ", ".join(each.name for each in uses) or "no parameters"
            raise InputError(
                f"the model has no module or parameter {pattern!r}; it has {names}.{did_you_mean(pattern, known)}"
            )
    patterns = [pattern or "*" for pattern in only]
    return [each for each in uses if each.is_among(patterns)]


def _row(use: ParameterUse) -> Row:
    shared = "".join(f"; the same tensor as {name}" for name in use.also)
    owner = owner_of(use.name)
    record = module_row(
        Label("use", use.name, use.how + shared, ""),
        use.parameter,
        used=use.uses,
        # Known of the recurrent modules alone.
        multiply_adds=None,
        uses=use.uses,
        role=use.role,
    )
    return {"kind": "use", "module": owner or ROOT, **record}
