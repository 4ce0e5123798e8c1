"""Models, data and cases that remedies and short trainings are tried on in the tests."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

import rnnctl
from rnnctl.diagnosis.case import Case, Settings

B, T, F_IN, H = 24, 12, 3, 8
MSE = Settings(loss="mse")


class Reader(nn.Module):
    """A layer whose last step is read; with an activation at the end."""

    def __init__(self, layer, end=None, outputs=1):
        super().__init__()
        self.layer, self.end = layer, end or nn.Identity()
        self.out = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), outputs)

    def forward(self, x):
        return self.end(self.out(self.layer(x)[0][:, -1]))


class Looped(nn.Module):
    """A cell in a loop of the user's own."""

    def __init__(self, cell):
        super().__init__()
        self.cells = nn.ModuleList([cell])
        self.out = nn.Linear(H, 1)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], H)
        for x_t in x.unbind(1):
            h = self.cells[0](x_t, h)
        return self.out(h)


def reader(kind=nn.RNN, *, end=None, outputs=1, **settings):
    torch.manual_seed(0)
    return Reader(kind(F_IN, H, **{"batch_first": True, **settings}), end, outputs)


def data(seed=1, **settings):
    """Sequences, and as a target what their first feature was five steps before the end."""
    x = torch.randn(B, T, F_IN, generator=torch.Generator().manual_seed(seed))
    return x, x[:, -6, :1].clone()


class Written(nn.Module):
    """A cell of the user's own: W_hh beside W_xh in one linear map, or one block for each of two gates, or alone."""

    def __init__(self, form="beside"):
        super().__init__()
        self.form, rows = form, 2 * H if form == "gated" else H
        self.both = nn.Linear(F_IN + H, rows)
        self.W = nn.Parameter(0.1 * torch.randn(H, H))
        self.out = nn.Linear(H, 1)

    def step(self, x_t, h):
        if self.form == "alone":
            return F.softsign(self.both(torch.cat((x_t, 0 * x_t[:, :1].expand(-1, H)), 1)) + F.linear(h, self.W))
        both = self.both(torch.cat((x_t, h), 1))
        if self.form == "beside":
            return torch.tanh(both)
        keep, new = both.chunk(2, 1)
        return torch.sigmoid(keep) * h + torch.tanh(new)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], H)
        for x_t in x.unbind(1):
            h = self.step(x_t, h)
        return self.out(h)


def written(form):
    torch.manual_seed(0)
    return Written(form)


MODELS = {
    "rnn": lambda: reader(num_layers=2),
    "relu rnn": lambda: reader(nonlinearity="relu"),
    "double rnn": lambda: reader(bias=False).double(),
    "gru": lambda: reader(nn.GRU),
    "lstm": lambda: reader(nn.LSTM, end=nn.Tanh()),
    "coupled lstm": lambda: reader(rnnctl.CoupledLSTM),
    "both ways": lambda: reader(bidirectional=True),
    "time first": lambda: reader(batch_first=False),
    "rnn cell": lambda: Looped(nn.RNNCell(F_IN, H)),
    "gru cell": lambda: Looped(nn.GRUCell(F_IN, H)),
    "guide's cell": lambda: Looped(rnnctl.ManualRNNCell(F_IN, H)),
    "guide's network": lambda: rnnctl.FullRNN(F_IN, H, 1, output_activation="tanh"),
    "guide's double": lambda: rnnctl.FullRNN(F_IN, H, 1, bias=False).double(),
    "a layer alone": lambda: nn.RNN(F_IN, 1, batch_first=True),
    "written beside": lambda: written("beside"),
    "written gated": lambda: written("gated"),
    "written alone": lambda: written("alone"),
    "no recurrence known": lambda: nn.Linear(F_IN, 1),
}


def case_of(name, **settings):
    torch.manual_seed(0)
    model = MODELS[name]()
    dtype = next(model.parameters()).dtype
    x, target = (each.to(dtype) for each in data())
    return Case(model, x, target, replace(MSE, **settings), lag=5)


def assert_same_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)
