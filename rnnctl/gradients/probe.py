"""Attach to somebody's model for one training step, and report what every time step contributed."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from rnnctl.errors import InputError, did_you_mean
from rnnctl.files.signals import put_off
from rnnctl.gradients.layer_readings import LayerReadings
from rnnctl.gradients.probed import probed
from rnnctl.gradients.tape_recording import TapeRecording
from rnnctl.gradients.trace import ProbedWeight, Trace
from rnnctl.models.modules import (
    matches,
    none_found,
    recurrent_modules,
    require_no_linear,
    weight_names,
    why_compiled,
)
from rnnctl.models.recording import Recording
from rnnctl.models.tape.block import Block
from rnnctl.models.weight_uses import Asked


@contextmanager
def probe(
    model: nn.Module,
    *,
    only: str | None = None,
    state: str | None = None,
    step: str | None = None,
    decay: bool = False,
    lengths: Tensor | None = None,
    linear: object = None,
) -> Iterator[Trace]:
    """Watch one training step of any model, and itemise the gradient of its recurrent weights by time step.

    Run the forward and the backward pass within the block; the trace is filled when it ends. The
    model, its gradients and the random numbers are as they would be without the probe. Torch's layers and cells
    and rnnctl's own are known; every other weight that recurs is found in autograd's graph, however it is written.

    Args:
        model: any module.
        only: a pattern of module or weight names, such as "decoder.*"; the name of a parameter that is shared by
            the steps and does not recur itemises that one.
        state: the name of the module whose output is the state, where that is not found.
        step: the name of the module whose call is one step, where a step is several uses (sub-steps of a solver).
        decay: also follow the gradient that enters at the last step alone (one more sweep where the
            loss has more than that; autograd's graph then lasts until the backward pass is through).
        lengths: real steps of every sequence, (batch,), to learn how much of the gradient falls on the
            padding of sequences that were not packed.
        linear: gone; an InputError says what to write instead.
    Yields:
        A ``Trace``: weight names, such as "encoder.weight_hh_l0_reverse", to frozen results.
    Raises:
        InputError: nothing recurrent, or something that cannot be seen into (compiled, quantized,
            torch.no_grad, double backward), or no backward pass within the block.
    Source: Werbos 1990, "Backpropagation through time".
    """
    require_no_linear(linear)
    probing = Probing(model, only, Extra(state, step, decay, lengths))
    trace = Trace()
    try:
        probing.attach()
        yield trace
    finally:
        # An interrupt in the middle of it would leave hooks and patches behind.
        with put_off(signal.SIGINT):
            probing.detach()
    # Only of a block that ended well: otherwise its own error is what the user has to see.
    results, missing = probing.results()
    if not results:
        raise InputError(probing.why_nothing(missing)) from probing.bug
    trace._fill(results, missing)


@dataclass(frozen=True)
class Extra:
    """What may be known of weights that are found in the graph, and what is wanted beside norms; as of ``probe``."""

    state: str | None = None
    step: str | None = None
    decay: bool = False
    lengths: Tensor | None = None


class Probing:
    """Hooks on a model from ``attach`` to ``detach``: on what is known by its class, and on autograd's graph.

    Args:
        model, only: as of ``probe``.
        extra: the rest of it.
        block: whose calls and passes; those of this thread if left out.
    """

    def __init__(
        self, model: nn.Module, only: str | None = None, extra: Extra | None = None, block: Block | None = None
    ) -> None:
        extra, self.block = extra or Extra(), block or Block([model])
        found = recurrent_modules(model, only)
        _require_modules(model, extra)
        self.model, self.only, self.extra = model, only, extra
        self.recording = Recording(found, block=self.block)
        asked = Asked(self._is_wanted, extra.state, extra.step)
        self.tape = TapeRecording(model, asked, self.block, self.recording.calls, want_decay=extra.decay)
        # A decay and the part of padding come of a sweep alone.
        swept = extra.decay or extra.lengths is not None
        self.readings = LayerReadings([] if swept else self.recording.calls, self.block)

    def attach(self) -> None:
        """Set the hooks."""
        self.recording.attach()
        self.tape.attach()
        self.readings.attach()

    def detach(self) -> None:
        """Take all hooks away."""
        self.recording.detach()
        self.tape.detach()
        self.readings.detach()

    def results(self) -> tuple[dict[str, ProbedWeight], dict[str, str]]:
        """As ``probed`` gives them."""
        return probed(
            self.recording,
            self.only,
            want_decay=self.extra.decay,
            lengths=self.extra.lengths,
            tape=self.tape,
            readings=self.readings,
        )

    @property
    def bug(self) -> Exception | None:
        """An error of ours that was kept from the user's passes."""
        bugs = [calls.bug for calls in self.recording.calls if calls.bug is not None]
        return bugs[0] if bugs else self.tape.bug or self.readings.bug

    def why_nothing(self, missing: Mapping[str, str]) -> str:
        """What to say where nothing was found."""
        compiled = why_compiled(self.model)
        if compiled is not None:
            return compiled
        if self.tape.bug is not None:
            error = f"{type(self.tape.bug).__name__}: {self.tape.bug}"
            return f"autograd's graph could not be read: {error}. Please report this with the model"
        missing = missing or self.tape.before
        if self.tape.opaque is not None:
            return f"the weights enter {self.tape.opaque}: its steps cannot be seen from outside"
        if missing:
            return "; ".join(f"{name}: {why}" for name, why in missing.items())
        counts = self.tape.counts
        if not counts:
            if self.block.elsewhere:
                return (
                    "no backward pass of the thread in which the block began was seen, and another thread ran the "
                    "model. Try: begin the block in the thread that trains"
                )
            what = "" if self.recording.calls else f"{none_found(self.model)}, and "
            return (
                f"{what}no backward pass through its weights was seen: call backward() within the block, on what was "
                "run within it and not under torch.no_grad"
            )
        return f"{none_found(self.model)}, and no weight recurs in the pass that was run: {_used(counts)}"

    def _is_wanted(self, name: str, recurs: bool) -> bool:
        """Whether a weight of the graph is to be itemised."""
        if name in self._known_names():
            return False
        return name == self.only or (recurs and matches(name, self.only))

    def _known_names(self) -> set[str]:
        """Recurrent weights that are seen by their module's class."""
        seen = (calls for calls in self.recording.calls if calls.kept or calls.repeated or calls.refusal)
        return {name for calls in seen for name in weight_names(calls.found, None)}


def _require_modules(model: nn.Module, extra: Extra) -> None:
    """Raise InputError for a name in ``state`` or ``step`` that the model has not."""
    modules = dict(model.named_modules())
    for what, name in (("state", extra.state), ("step", extra.step)):
        if name is not None and name not in modules:
            raise InputError(f"{what}={name!r}: the model has no such module.{did_you_mean(str(name), modules)}")


def _used(counts: Mapping[str, tuple[int, bool]]) -> str:
    """How often weights are used, those first that are used most."""
    most = sorted(counts.items(), key=lambda item: -item[1][0])[:6]
    said = [f"{name} is used {'once' if count == 1 else f'{count} times'}" for name, (count, _) in most]
    once = all(count == 1 for count, _ in counts.values())
    why = (
        " for all steps (a parallel scan, a product over all steps, one step alone, or no recurrence?)" if once else ""
    )
    return f"{', '.join(said)}{why}. A weight recurs where what it multiplies leads back to an earlier use of it"
