"""What can be asked of every result is declared beside it, and what it cannot answer says why."""

import json
import sys
from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn

from rnnctl.__main__ import main
from rnnctl.benchmark import flow, gradnorm, probe
from rnnctl.results import Result

MINE = """
import torch
from torch import nn

class Raw(nn.Module):
    def __init__(self, scale=0.3):
        super().__init__()
        self.W, self.U = nn.Parameter(torch.randn(5, 5) * scale), nn.Linear(10, 5)
    def forward(self, x):
        h, states = x.new_zeros(x.shape[0], 5), []
        for x_t in x.unbind(1):
            h = torch.tanh(self.U(x_t) + h @ self.W)
            states.append(h)
        return torch.stack(states, 1)

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(15, 20)
    def forward(self, x):
        h = c = x.new_zeros(x.shape[0], 5)
        states = []
        for x_t in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([x_t, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, 1)
"""
OVERFLOW = "--init identity --gain 30 --nonlinearity relu --seq-len 60"
LINES = [
    "cell",
    "forward",
    "forward --cell lstm",
    "forward --model answering:Raw",
    "unroll",
    "unroll --model answering:Raw",
    "gradnorm",
    "gradnorm --no-verify --seq-len 1",
    "gradnorm --seq-len 40",
    "gradnorm --dtype float16 --seq-len 30",
    f"gradnorm {OVERFLOW}",
    "gradnorm --cell lstm",
    "gradnorm --cell gru --seq-len 1",
    "gradnorm --cell rnn --no-verify --num-layers 2 --bidirectional",
    f"gradnorm --cell rnn {OVERFLOW}",
    "gradnorm --model answering:Raw",
    "gradnorm --model answering:Wide --loss-at all",
    "flow",
    "flow --seq-len 1",
    "flow --cell lstm --no-verify",
    f"flow {OVERFLOW}",
    "flow --model answering:Raw",
    "truncation",
    "truncation --seq-len 1",
    f"truncation {OVERFLOW}",
    "truncation --model answering:Wide",
    "spectrum",
    "spectrum --nonlinearity relu",
    f"spectrum {OVERFLOW}",
    "spectrum --cell gru",
    "spectrum --cell lstm",
    "spectrum --model answering:Raw",
    "spectrum --model answering:Wide",
    "lyapunov",
    "lyapunov --count 2 --seq-len 20",
    "lyapunov --cell gru",
    "lyapunov --model answering:Raw",
    "weights lstm.pt",
    "weights linear.pt",
    "check",
    "bench --seq-len 5 --repeats 1",
    "bench --flow --seq-len 5 --repeats 1",
    "bench --probe --seq-len 5 --repeats 1",
]
IS = {float: (int, float), bool: (bool,), str: (str,)}


def results(kind=Result):
    for each in kind.__subclasses__():
        if each.__module__.startswith("rnnctl."):
            yield each
        yield from results(each)


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "answering", raising=False)
    # Measured in fresh interpreters, for rows alone.
    monkeypatch.setattr("rnnctl.benchmark.gradnorm.peak_bytes", lambda method, work: 2**20)
    (tmp_path / "answering.py").write_text(MINE)
    torch.save(nn.LSTM(3, 4).state_dict(), tmp_path / "lstm.pt")
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "linear.pt")

    def run(line):
        code = main([*line.split(), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.mark.parametrize("line", LINES)
def test_every_scalar_is_declared_and_says_why_it_has_no_value(said, line):
    found = said(line)
    declared = {each.schema: each.answers() for each in results() if isinstance(each.__dict__.get("schema"), str)}
    declared |= {cases.schema: cases.answers() for cases in (gradnorm.CASES, flow.CASES, probe.CASES)}
    kinds = declared[found["schema"].removeprefix("rnnctl.")].kinds
    scalars, why = found["scalars"], found.get("why", {})
    not_finite = scalars["nonfinite"] if isinstance(scalars.get("nonfinite"), dict) else {}
    for name, value in scalars.items():
        if name == "nonfinite" and isinstance(value, dict):
            continue
        fitting = [kind for pattern, kind in kinds.items() if fnmatchcase(name, pattern)]
        assert len(fitting) == 1, name
        if value is None:
            assert (name in not_finite) != bool(why.get(name)), name
        elif isinstance(fitting[0], tuple):
            assert value in fitting[0], name
        else:
            assert isinstance(value, IS[fitting[0]]), name
            assert isinstance(value, bool) == (fitting[0] is bool), name
    assert set(why) <= {name for name, value in scalars.items() if value is None}
    # What is declared is there: but for patterns, all of it.
    assert {name for name in kinds if "*" not in name} <= set(scalars)
