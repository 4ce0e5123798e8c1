"""Any model unrolled through time: the steps of its recurrent weights, as they were counted in autograd's graph."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import nn

from rnnctl.errors import InputError
from rnnctl.models.inputs import Given, TimeFirst
from rnnctl.models.loop_steps import Entering, Loop
from rnnctl.models.loops import loops_of
from rnnctl.models.model_run import ModelRun
from rnnctl.models.modules import none_found, recurrent_modules
from rnnctl.models.parameter_uses import ForwardPass, ParameterUse, counts_by_role, how_used
from rnnctl.results import Kind, Result, numbers
from rnnctl.view.shown import Shown


@dataclass(frozen=True)
class UnrolledModel(Shown, Result):
    """The steps of every recurrent weight of a model in one forward pass, and the uses of all its parameters.

    Attributes:
        loops: of each recurrent weight, or of those that lead back to one another together, its steps.
        parameters: one record each: name, shape, elements, leaves and uses in autograd's graph, role (recurrent,
            shared, once, unused), counted (where that comes from; why not, where leaves, uses and role are None).
    ``rows`` have of every step weight (that stands for the loop), chain, t, follows (the steps whose state it
    takes), uses (of that weight), and the names of what enters: state (what the state goes through), given (on the
    way from outside into the step), read (what reads the state after it). What is used once enters at no step.
    """

    schema: ClassVar[str] = "unroll-modules"
    kinds: ClassVar[Mapping[str, Kind]] = numbers("loops", "chains", "steps", *counts_by_role(()), "unique_*", "*_uses")
    loops: tuple[Loop, ...]
    parameters: tuple[Mapping[str, Any], ...]

    @property
    def scalars(self) -> Mapping[str, Any]:
        """Loops, chains and steps; parameters by their roles; of each drawn weight its leaves and its uses."""
        chains = [chain for loop in self.loops for chain in loop.chains]
        counts = {"loops": len(self.loops), "chains": len(chains), "steps": sum(len(chain.steps) for chain in chains)}
        drawn = [self.parameter(loop.weight) for loop in self.loops]
        leaves = {f"unique_{each['name']}": each["leaves"] for each in drawn}
        roles = counts_by_role(each["role"] for each in self.parameters)
        return {**counts, **roles, **leaves, **{f"{each['name']}_uses": each["uses"] for each in drawn}}

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One record per step, loop after loop and chain after chain."""
        return tuple(row for loop in self.loops for row in _rows(loop))

    @property
    def more(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """``parameters``."""
        return {"parameters": self.parameters}

    def parameter(self, name: str) -> Mapping[str, Any]:
        """The record of a parameter by its name."""
        return next(each for each in self.parameters if each["name"] == name)


def unroll_model(model: nn.Module, x: Given, only: str | None = None, time_first: TimeFirst = None) -> UnrolledModel:
    """Run any model once, and read the steps of its recurrent weights off autograd's graph.

    Args:
        model: any module; left as a forward pass leaves it, with no gradients.
        x: what it takes, as for ``probe``'s model: (batch, time, input), token numbers, a tuple or a mapping.
        only: a pattern of module or weight names; all recurrent weights if left out.
        time_first: as of ``gradnorm``.
    Raises:
        InputError: nothing recurs, with what was counted; a pattern of no recurrent weight.
    """
    known, run = recurrent_modules(model, only), ModelRun(model, x, None, time_first)
    found = ForwardPass(model, run)
    wanted = [each.name for each in found.uses if only is None or each.is_among([only])]
    loops = loops_of(found, set(wanted).__contains__)
    if not loops:
        raise run.explained(InputError(_why_nothing(model, found, only, known=bool(known))))
    return UnrolledModel(tuple(loops), tuple(_record(each) for each in found.uses), notes=run.notes)


def _why_nothing(model: nn.Module, found: ForwardPass, only: str | None, *, known: bool) -> str:
    asked = [each for each in found.uses if only is None or each.is_among([only])]
    recurrent = [each.name for each in found.uses if each.recurs]
    if recurrent:
        return f"{only!r} does not recur: {how_used(asked)}. Recurrent here: {', '.join(recurrent)}"
    what = "" if known else f"{none_found(model)}, and "
    return f"{what}no weight recurs in the pass that was run: {how_used(asked)}"


def _record(use: ParameterUse) -> Mapping[str, Any]:
    sizes = {"shape": list(use.parameter.shape), "elements": use.parameter.numel()}
    return {"name": use.name, **sizes, "leaves": use.leaves, "uses": use.uses, "role": use.role, "counted": use.how}


def _rows(loop: Loop) -> Iterator[Mapping[str, Any]]:
    for number, chain in enumerate(loop.chains):
        for t, step in enumerate(chain.steps):
            entering = {name: _names(getattr(step, name)) for name in ("state", "given", "read")}
            head = {"weight": loop.weight, "chain": number, "t": t, "follows": list(step.follows)}
            yield {**head, "uses": step.state.get(loop.weight, 0), **entering}


def _names(entering: Entering) -> str:
    return ", ".join(entering)
