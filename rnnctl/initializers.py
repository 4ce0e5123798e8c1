"""Named initialisations of the recurrent matrix W_hh, and those that change a module in place.

``orthogonal_``, ``identity_``, ``forget_bias_``, ``chrono_`` and ``critical_`` take a layer (nn.RNN, nn.GRU, nn.LSTM,
rnnctl.CoupledLSTM), a cell (nn.RNNCell, nn.GRUCell, nn.LSTMCell, rnnctl.ManualRNNCell) or a rnnctl.FullRNN, with all
of its layers and directions, change weights that are there, and return the module.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from rnnctl.errors import InputError
from rnnctl.recurrence.critical_gain import critical_gain
from rnnctl.recurrence.nonlinearities import NONLINEARITIES

INITIALIZERS = ("default", "orthogonal", "identity", "gaussian")
# The gates in the order of the rows of every weight: of layers by what torch calls their mode, of cells by their class.
MODES: Mapping[str, str] = {"RNN_TANH": "h", "RNN_RELU": "h", "GRU": "rzn", "LSTM": "ifgo", "COUPLED_LSTM": "fgo"}
CELLS: Mapping[type[nn.Module], str] = {nn.RNNCell: "h", nn.GRUCell: "rzn", nn.LSTMCell: "ifgo"}
# The gate that keeps the state, by the gates: torch's z keeps h, where others let the new one in by it.
KEEPS: Mapping[str, str] = {"rzn": "z", "ifgo": "f", "fgo": "f"}
# Ways to draw a W_hh of which a critical gain is known.
CRITICAL_WAYS = ("orthogonal", "gaussian")
TAKEN = "nn.RNN, nn.GRU, nn.LSTM, rnnctl.CoupledLSTM, their cells, rnnctl.ManualRNNCell and rnnctl.FullRNN"

Module = TypeVar("Module", bound=nn.Module)


def orthogonal_(module: Module, gain: float = 1.0, *, generator: Generator | None = None) -> Module:
    """A random orthogonal W_hh, gate by gate: no direction of the state is stretched or shrunk more than another.

    Args:
        module: a layer, a cell or a FullRNN, whose W_hh have shape (gates * hidden, hidden).
        gain: all singular values of every gate's block (hidden, hidden); of a projected LSTM those of (hidden, proj).
        generator: source of the random numbers; torch's own if left out.
    Returns:
        The module.
    Raises:
        InputError: another module, a weight that is computed from others, a gain that is not finite.
    Source: Saxe et al. 2014, arXiv:1312.6120; Henaff, Szlam & LeCun 2016, arXiv:1602.06662.
    """
    return fill_(module, "orthogonal_", "orthogonal", gain, generator)


def identity_(module: Module, gain: float = 1.0) -> Module:
    """The identity as W_hh, gate by gate: of a relu network the state stays until something is added to it.

    Args:
        module: a layer, a cell or a FullRNN, whose W_hh have shape (gates * hidden, hidden).
        gain: on the diagonal of every gate's block (hidden, hidden).
    Returns:
        The module. Its biases, which the source sets to 0, are as they were.
    Raises:
        InputError: another module, a projection (W_hh is not square), a weight that is computed from others, a gain
            that is not finite.
    Source: Le, Jaitly & Hinton 2015, arXiv:1504.00941, with relu and small steps.
    """
    if any(each.W_hh.shape[1] != each.hidden for each in _recurrences(module, "identity_")):
        raise InputError("identity_ takes a square W_hh; of a projected LSTM it is (4 * hidden, proj). Try orthogonal_")
    return fill_(module, "identity_", "identity", gain, None)


def forget_bias_(module: Module, value: float = 1.0) -> Module:
    """The same bias for every gate that keeps the state: f of an LSTM and a CoupledLSTM, z of a GRU.

    At rest the gate is open by sigmoid(value): of 1 it keeps 0.73 of the state per step, of 3 it keeps 0.95.

    Args:
        module: a layer or a cell with such a gate and with biases, each of shape (gates * hidden,).
        value: what the two biases of the gate, bias_ih and bias_hh, add up to; the first has all of it.
    Returns:
        The module.
    Raises:
        InputError: another module, no gate that keeps, no biases, biases that are computed from others, a value that
            is not finite.
    Source: Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015.
    """
    require_finite("value", value)
    for each in _keeping(module, "forget_bias_"):
        each.set_bias(each.keeps, torch.full((each.hidden,), float(value)))
    return module


def chrono_(module: Module, longest: float, *, generator: Generator | None = None) -> Module:
    """Chrono initialisation: gates that keep the state for times from 2 steps up to the longest, drawn evenly.

    b_f = ln(u), u uniform between 1 and longest - 1, keeps 1/e of the state for about 1 + u steps; the input gate of
    an LSTM gets b_i = -b_f, so that as much enters as is let go. Of a GRU z gets b_f: in torch it is z that keeps.

    Args:
        module: as of ``forget_bias_``.
        longest: how many steps are to be bridged, from 2 up.
        generator: source of the random numbers; torch's own if left out.
    Returns:
        The module; biases of other gates are as they were.
    Raises:
        InputError: as of ``forget_bias_``; a longest below 2 or not finite.
    Source: Tallec & Ollivier 2018, arXiv:1804.11188, equations 15 and 16.
    """
    require_finite("longest", longest)
    if longest < 2:
        raise InputError(f"longest must be at least 2 steps; got {longest}")
    for each in _keeping(module, "chrono_"):
        # On the CPU, as torch's own generator is, so that a seed means the same numbers everywhere.
        device = "cpu" if generator is None else generator.device
        times = torch.rand(each.hidden, generator=generator, device=device) * (longest - 2) + 1
        each.set_bias(each.keeps, times.log())
        if "i" in each.gates:
            each.set_bias("i", -times.log())
    return module


def critical_(
    module: Module, source_variance: float = 0.0, *, init: str = "orthogonal", generator: Generator | None = None
) -> Module:
    """W_hh at the gain that is critical for the input: of tanh above 1, since strong inputs flatten its slope.

    Args:
        module: an Elman layer or cell (nn.RNN, nn.RNNCell, rnnctl.ManualRNNCell) or a rnnctl.FullRNN, whose W_hh have
            shape (hidden, hidden).
        source_variance: mean square of W_xh x_t + b_xh + b_hh, over the units and steps; the same for all layers.
        init: "orthogonal", an orthogonal matrix times the gain, or "gaussian", N(0, gain^2 / hidden).
        generator: source of the random numbers; torch's own if left out.
    Returns:
        The module.
    Raises:
        InputError: a module with gates or another one, for which no gain is known; a variance that is negative or not
            finite; an unknown way to draw; a weight that is computed from others.
    Source: Schoenholz et al. 2017, arXiv:1611.01232; Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735, for
        orthogonal matrices; ``rnnctl.recurrence.critical_gain``.
    """
    if init not in CRITICAL_WAYS:
        raise InputError(f"init must be {' or '.join(CRITICAL_WAYS)}; got {init!r}")
    require_finite("source_variance", source_variance)
    cell = module.rnn_cell if isinstance(getattr(module, "rnn_cell", None), nn.Module) else module
    nonlinearity = getattr(cell, "nonlinearity", None)
    if nonlinearity not in NONLINEARITIES:
        raise InputError(
            f"critical_ knows the gain of an Elman network alone: nn.RNN, nn.RNNCell, rnnctl.ManualRNNCell or "
            f"rnnctl.FullRNN; got {type(module).__name__}. Try orthogonal_, or of an LSTM or GRU chrono_"
        )
    return fill_(module, "critical_", init, critical_gain(source_variance, str(nonlinearity)), generator)


def initialize_W_hh(W_hh: Float[Tensor, "hidden state"], init: str, gain: float, generator: Generator | None) -> None:
    """Fill W_hh in place.

    Args:
        W_hh: shape (hidden, hidden); of a projected LSTM (hidden, proj).
        init: "default" keeps torch's uniform(-1/sqrt(H), 1/sqrt(H)), of variance 1/(3H);
            "orthogonal" a random orthogonal matrix; "identity" I; "gaussian" N(0, 1/H).
        gain: factor on W_hh, whichever way it was drawn; gaussian becomes N(0, gain^2/H).
        generator: source of the random numbers; None: torch's own.
    Raises:
        InputError: an unknown name, or a gain that is not finite.
    Source: orthogonal: Saxe et al. 2014, arXiv:1312.6120; identity: Le, Jaitly & Hinton 2015,
        arXiv:1504.00941; gaussian: Sompolinsky, Crisanti & Sommers 1988.
    """
    if init not in INITIALIZERS:
        raise InputError(f"init must be one of {', '.join(INITIALIZERS)}; got {init!r}")
    require_finite("gain", gain)
    with torch.no_grad():
        if init == "orthogonal":
            nn.init.orthogonal_(W_hh, generator=generator)
        elif init == "identity":
            nn.init.eye_(W_hh)
        elif init == "gaussian":
            nn.init.normal_(W_hh, std=W_hh.shape[1] ** -0.5, generator=generator)
        W_hh.mul_(gain)


@dataclass(frozen=True, eq=False)
class _Recurrence:
    """The recurrent weights of one layer in one direction.

    Attributes:
        gates: in the order of the rows, a letter each.
        W_hh: shape (gates * hidden, hidden), or (gates * hidden, proj).
        biases: that of the input and that of the state, (gates * hidden,) each; empty where there are none.
    """

    gates: str
    W_hh: Tensor
    biases: tuple[Tensor, ...]

    @property
    def hidden(self) -> int:
        return self.W_hh.shape[0] // len(self.gates)

    @property
    def keeps(self) -> str:
        return KEEPS[self.gates]

    def set_bias(self, gate: str, value: Tensor) -> None:
        """Let the two biases of a gate add up to a value, shape (hidden,)."""
        rows = slice(self.gates.index(gate) * self.hidden, (self.gates.index(gate) + 1) * self.hidden)
        with torch.no_grad():
            self.biases[0][rows] = value.to(self.W_hh)
            self.biases[1][rows] = 0


def fill_(module: Module, asked: str, init: str, gain: float, generator: Generator | None) -> Module:
    """Fill every gate's block of every W_hh of a module as ``initialize_W_hh`` does.

    Args:
        asked: who asks, for messages.
        init, gain, generator: as of ``initialize_W_hh``; W_hh has shape (gates * hidden, hidden).
    """
    for each in _recurrences(module, asked):
        for block in torch.split(each.W_hh.detach(), each.hidden):
            initialize_W_hh(block, init, gain, generator)
    return module


def _keeping(module: nn.Module, asked: str) -> list[_Recurrence]:
    """Its recurrences, refused where no gate keeps the state or where there are no biases."""
    found = _recurrences(module, asked)
    if found[0].gates not in KEEPS:
        raise InputError(
            f"{asked} sets a gate that keeps the state, and {type(module).__name__} has none. Try orthogonal_ or "
            "critical_, or an LSTM or GRU"
        )
    if not found[0].biases:
        raise InputError(f"{asked} sets biases, and this {type(module).__name__} has none (bias=False)")
    return found


def _recurrences(module: nn.Module, asked: str) -> list[_Recurrence]:
    """Of every layer and direction of a module that is known; InputError for others."""
    found = list(_layers(module))
    if found:
        return found
    if not isinstance(module, nn.Module):
        raise InputError(f"{asked} takes {TAKEN}; got {module!r}")
    known = [name for name, inner in module.named_modules() if name and any(_layers(inner))]
    hint = f". Of what it holds, try {asked}(model.get_submodule({known[0]!r}))" if known else ""
    raise InputError(f"{asked} takes {TAKEN}; got {type(module).__name__}{hint}")


def _layers(module: nn.Module) -> Iterator[_Recurrence]:
    module = getattr(module, "rnn_cell", module)  # Of a FullRNN.
    cell = next((gates for kind, gates in CELLS.items() if isinstance(module, kind)), None)
    if isinstance(module, nn.RNNBase) and module.mode in MODES:
        for layer in range(module.num_layers):
            for end in ("", "_reverse")[: 2 if module.bidirectional else 1]:
                yield _of_torch(module, MODES[module.mode], f"_l{layer}{end}")
    elif cell is not None:
        yield _of_torch(module, cell, "")
    else:
        # The guide's cell, or one that somebody wrote in its form.
        by_x, by_h = getattr(module, "input_to_hidden", None), getattr(module, "hidden_to_hidden", None)
        if isinstance(by_x, nn.Linear) and isinstance(by_h, nn.Linear) and by_h.in_features == by_h.out_features:
            biases = () if by_x.bias is None or by_h.bias is None else (_own(by_x, "bias"), _own(by_h, "bias"))
            yield _Recurrence("h", _own(by_h, "weight"), biases)


def _of_torch(module: nn.Module, gates: str, end: str) -> _Recurrence:
    """Of one layer in one direction, whose parameters' names end so."""
    names = (f"bias_ih{end}", f"bias_hh{end}") if module.bias else ()
    return _Recurrence(gates, _own(module, f"weight_hh{end}"), tuple(_own(module, name) for name in names))


def _own(module: nn.Module, name: str) -> Tensor:
    """A parameter; InputError where it is made of others, and a change in place would be lost."""
    parameter = module._parameters.get(name)
    if parameter is None:
        raise InputError(
            f"{name} of this {type(module).__name__} is computed from other parameters (a parametrization, a weight "
            "norm): what is set in it is lost. Initialise it first, and parametrize it then"
        )
    return parameter


def require_finite(name: str, value: float) -> None:
    """Raise InputError for what is no finite number."""
    try:
        is_finite = math.isfinite(value)
    except (TypeError, ValueError):
        # Text, nothing, or several numbers.
        raise InputError(f"{name} must be a finite number; got {value!r}") from None
    if not is_finite:
        raise InputError(f"{name} must be a finite number; got {value}")
