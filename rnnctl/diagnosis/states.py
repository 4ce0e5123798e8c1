"""What the states and gates of a network are like: ends that they never leave, silence."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnnctl.diagnosis.look import Look, held_share, unknown
from rnnctl.diagnosis.patient import Patient
from rnnctl.recurrence.nonlinearities import SATURATED
from rnnctl.recurrence.states_seen import percent

# Of all units and steps; of all units.
NEARLY_ALL, MANY_DEAD, SOME_DEAD = 0.95, 0.5, 0.4
# A gate that is nearer to its end is at it. One that keeps the state is meant to be nearly open for long lags: it is
# at its end where it lets go of less than that in the whole sequence.
AT_END = 0.01


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate: in words, its values by unit (n, units), how near to its end it may be on purpose, and its weight."""

    words: str
    values: Tensor
    margin: float
    weight: str = ""


def stuck_gate(patient: Patient) -> Look:
    """The gate that is open or shut in most of its units and steps, and in which part of them."""
    gates = list(_gates(patient))
    if not gates:
        layers = patient.passed.layers
        if layers:
            return Look(False, 0.0, NEARLY_ALL, sentence=f"a cell of kind {layers[0].kind.name} has no gates")
        return unknown("no gate is to be seen: no cell of a known kind, and no sigmoid at every step")
    looks = [replace(_judged(gate), weight_name=patient.one_of_several(gate.weight)) for gate in gates]
    return max(looks, key=lambda look: (look.found is True, look.number or 0.0))


def _judged(gate: Gate) -> Look:
    is_open = float((gate.values > 1 - gate.margin).double().mean())
    is_shut = float((gate.values < gate.margin).double().mean())
    share, what = max((is_open, "open"), (is_shut, "shut"))
    sentence = f"{gate.words} is {what} in {percent(share)} of its units and steps: it lets nothing change"
    return held_share(share, NEARLY_ALL, sentence)


def _gates(patient: Patient) -> Iterator[Gate]:
    for_whole = min(AT_END, 1 / patient.steps)
    for layer in patient.passed.layers:
        if not layer.kind.gates:
            continue
        values = torch.sigmoid(layer.sums())
        for number, gate in enumerate(layer.kind.gates):
            if not gate.is_candidate:
                margin = for_whole if gate.letter == layer.kind.keep else AT_END
                yield Gate(f"the {gate.words} of {layer.name}", layer.real(values[:, :, number]), margin, layer.name)
    yield from _gates_by_hand(patient, for_whole)


def _gates_by_hand(patient: Patient, margin: float) -> Iterator[Gate]:
    """Of loops written by hand: every sigmoid of a step; one that is as wide as several tanh is several gates."""
    sigmoids = [each for each in patient.written_by_hand if each.function == "Sigmoid"]
    widths = [each.values.shape[2] for each in patient.written_by_hand]
    for each in sigmoids:
        units, width = min(widths), each.values.shape[2]
        parts = torch.split(each.values, units, 2) if width % units == 0 else (each.values,)
        for number, part in enumerate(parts):
            of = f", part {number + 1} of {len(parts)}" if len(parts) > 1 else ""
            yield Gate(f"{each.words}{of}", part.flatten(0, 1), margin)


def dead_units(patient: Patient) -> Look:
    """The part of the units that are 0, or at an end of tanh, at every step of every sequence."""
    looks = [
        replace(_dead(name, h, has_ends), weight_name=patient.one_of_several(name))
        for name, h, has_ends in _states(patient)
    ]
    if not looks:
        return unknown("no state is to be seen: no cell of a known kind, and no tanh or relu at every step")
    return max(looks, key=lambda look: look.number or 0.0)


def _states(patient: Patient) -> Iterator[tuple[str, Tensor, bool]]:
    for layer in patient.passed.layers:
        yield layer.name, layer.real(layer.after), layer.has_ends
    for each in patient.written_by_hand:
        if each.function != "Sigmoid":
            yield each.words, each.values.flatten(0, 1), each.function == "Tanh"


def _dead(name: str, h: Tensor, has_ends: bool) -> Look:
    size = h.abs()
    silent = size.amax(0) == 0
    stuck = (size.amin(0) > SATURATED) if has_ends else torch.zeros_like(silent)
    share = float((silent | stuck).double().mean())
    what = "are at an end of tanh" if int(stuck.sum()) > int(silent.sum()) else "are 0"
    sentence = f"{percent(share)} of the units of {name} {what} at every step of every sequence: they pass nothing on"
    look = held_share(share, SOME_DEAD, sentence)
    return look.as_warning(share < MANY_DEAD)
