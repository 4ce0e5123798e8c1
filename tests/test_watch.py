"""``watch`` around a training loop, the file that it writes, and what is shown of it."""

import copy
import io
import json
import math
import resource
import shutil
import subprocess
import sys
import textwrap
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import rnnctl
from rnnctl.__main__ import main
from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.runs import read_run
from rnnctl.view.figures import FIGURES
from rnnctl.view.layouts.history import GRADNORM_HISTORY
from rnnctl.view.terminal import Terminal


class Tagger(nn.Module):
    """Two layers in two directions, dropout between them, and a readout."""

    def __init__(self, kind=nn.LSTM, dropout=0.3):
        super().__init__()
        self.core = kind(3, 4, 2, dropout=dropout, bidirectional=True, batch_first=True)
        self.readout = nn.Linear(8, 2)

    def forward(self, x):
        return self.readout(self.core(x)[0])


class Stepped(nn.Module):
    """A cell in the user's own loop; the loss is to be on the last state."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x):
        state = None
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
        return state[0]


NAMES = [f"core.weight_hh_l{layer}{suffix}" for layer in (0, 1) for suffix in ("", "_reverse")]


def seeded(kind=Tagger, *arguments):
    torch.manual_seed(0)
    return kind(*arguments)


def inputs(step, T=6):
    return torch.randn(2, T, 3, generator=torch.Generator().manual_seed(step))


def train(model, steps, around=None):
    """Losses; ``around`` is called before every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for step in range(steps):
        if around is not None:
            around(step)
        optimizer.zero_grad()
        loss = model(inputs(step)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def steps_of(path):
    return list(dict.fromkeys(line["step"] for line in lines(path)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_lines_are_what_probe_shows_of_the_same_steps(path, kind):
    model = seeded(Tagger, kind)
    with rnnctl.watch(model, every=1, to=path):
        train(model, 3)
    model, expected = seeded(Tagger, kind), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        with rnnctl.probe(model) as trace:
            model(inputs(step)).square().mean().backward()
        optimizer.step()
        expected.append(trace)
    found = lines(path)
    assert [(line["step"], line["weight"]) for line in found] == [(s, name) for s in range(3) for name in NAMES]
    for line in found:
        result = expected[line["step"]][line["weight"]]
        assert line["grad_norm_W_hh"] == result.grad_norm_W_hh.tolist()
        assert line["grad_norm_h"] == result.grad_norm_h.tolist()
        assert line["grad_norm_gates"] == {gate: norms.tolist() for gate, norms in result.grad_norm_gates.items()}
        assert line["autograd_relative_error"] == result.autograd_relative_error
        assert line["agrees"] is True
        assert line["states_agree"] is True
        assert line["steps_per_call"] == [6]
        assert line["schema"] == "rnnctl.watch"
        assert line["cell"] == kind.__name__


def test_step_0_and_every_nth_after_it_are_probed(path):
    model = seeded()
    with rnnctl.watch(model, every=3, to=path) as watching:
        train(model, 8)
    assert steps_of(path) == [0, 3, 6]
    assert (watching.steps, watching.probed) == (8, 3)


@pytest.mark.parametrize("every", [1, 3])
def test_training_is_bit_for_bit_what_it_is_without(path, every):
    runs = []
    for watched in (False, True):
        model = seeded()
        if watched:
            with rnnctl.watch(model, every=every, to=path):
                losses = train(model, 7)
        else:
            losses = train(model, 7)
        gradients = [parameter.grad for parameter in model.parameters()]
        runs.append([*losses, *model.state_dict().values(), *gradients, torch.get_rng_state()])
    assert all(torch.equal(plain, watched) for plain, watched in zip(*runs, strict=True))


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_hooks_are_gone_afterwards_and_finished_lines_stay(path, error):
    model = seeded()

    def interrupt(step):
        if step == 5 and error is not None:
            raise error("enough")

    try:
        with rnnctl.watch(model, every=2, to=path):
            train(model, 6, interrupt)
    except BaseException as raised:
        assert type(raised) is error  # noqa: PT017
    assert steps_of(path) == [0, 2, 4]
    assert hooks(model) == 0


def hooks(model):
    """On modules and on weights."""
    modules = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return modules + sum(len(p._backward_hooks or ()) for p in model.parameters())


def test_between_probed_steps_there_is_one_hook_a_recurrent_module(path):
    model = seeded()
    with rnnctl.watch(model, every=5, to=path):
        counts = []
        train(model, 7, lambda step: counts.append(hooks(model)))
    assert counts[1:5] == [1, 1, 1, 1]
    assert counts[0] == counts[5] == 3
    assert counts[6] == 1


@pytest.mark.slow
def test_a_killed_process_leaves_every_finished_line(path):
    script = f"""
    import os, torch, rnnctl
    model = torch.nn.GRU(3, 4)
    with rnnctl.watch(model, every=1, to={str(path)!r}):
        for step in range(3):
            model(torch.ones(5, 2, 3))[0].sum().backward()
        os._exit(7)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=120).returncode == 7
    assert steps_of(path) == [0, 1, 2]


def two_runs(path):
    for count in (3, 5):
        model = seeded(Tagger, nn.GRU)
        with rnnctl.watch(model, every=1, to=path):
            train(model, count)


def test_a_file_that_is_there_is_continued_and_its_last_run_is_shown(path):
    two_runs(path)
    assert len(lines(path)) == 8 * len(NAMES)
    found = rnnctl.gradnorm_history(path)
    assert found.steps == (0, 1, 2, 3, 4)
    assert len({line["run"] for line in lines(path)}) == 2
    assert found.run == lines(path)[-1]["run"]
    assert "holds 2 runs; this is the last" in found.notes[0]


@pytest.mark.parametrize("cut", [1, 2, 40, 500])
def test_a_torn_last_line_is_left_out_and_noted(path, cut):
    two_runs(path)
    whole = read_run(path)
    path.write_bytes(path.read_bytes()[:-cut])
    found = read_run(path)
    # The first byte to go is the end of the line, which is no loss.
    kept = len(whole.steps) - (cut > 1)
    assert found.steps == whole.steps[:kept]
    assert any(f"line {len(whole.steps) + 3 * len(NAMES)} is torn" in note for note in found.notes) == (cut > 1)


def test_a_run_after_a_torn_line_begins_a_line_of_its_own(path):
    model = seeded()
    with rnnctl.watch(model, to=path):
        train(model, 1)
    path.write_bytes(path.read_bytes()[:-40])
    with rnnctl.watch(model, to=path):
        train(model, 1)
    found = read_run(path)
    assert [each.weight for each in found.steps] == NAMES
    assert any("line 4 is torn" in note for note in found.notes)


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(path):
    two_runs(path)
    text = path.read_text().splitlines()
    path.write_text("\n".join([*text[:6], text[6][:30], *text[7:]]))
    with pytest.raises(InputError, match="line 7 is no JSON object"):
        read_run(path)


def test_evaluation_without_gradients_is_no_step(path):
    model = seeded()

    def evaluate(step):
        with torch.no_grad():
            model(inputs(step, 9))

    with rnnctl.watch(model, every=1, to=path) as watching:
        train(model, 3, evaluate)
    assert watching.steps == 3
    assert {line["steps_per_call"][0] for line in lines(path)} == {6}


@pytest.mark.parametrize("kind", [Tagger, Stepped])
def test_forward_passes_that_no_backward_follows_are_left_out(path, kind):
    model = seeded(kind)
    with rnnctl.watch(model, every=1, to=path):
        train(model, 3, lambda step: model(inputs(step, 9)))
    assert [sum(line["steps_per_call"]) for line in lines(path)] == [6] * len(lines(path))
    assert all(line["agrees"] for line in lines(path))


def test_every_backward_pass_of_accumulated_gradients_is_a_step(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path) as watching:
        for step in range(4):
            model(inputs(step)).square().mean().backward()
    assert (watching.steps, watching.probed) == (4, 4)
    assert all(line["agrees"] for line in lines(path))


def test_the_step_is_probed_with_the_weights_of_its_own_forward_pass(path):
    model = seeded()

    def step_at_once(parameter):
        parameter.data.sub_(parameter.grad)

    for parameter in model.parameters():
        # As some do to save memory.
        parameter.register_post_accumulate_grad_hook(step_at_once)
    with rnnctl.watch(model, every=1, to=path):
        for step in range(3):
            model.zero_grad()
            model(inputs(step)).square().mean().backward()
    assert all(line["agrees"] and line["states_agree"] for line in lines(path))


def test_lines_are_there_when_backward_returns(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path):
        loss = model(inputs(0)).sum()
        assert path.read_text() == ""
        loss.backward()
        assert len(lines(path)) == len(NAMES)


def test_a_loss_that_is_not_a_number_is_strict_json_and_counted(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path):
        model(inputs(0)).sum().backward()
        (model(inputs(1)).sum() * math.nan).backward()
    assert lines(path)[-1]["grad_norm_W_hh"].count(None) > 0
    found = rnnctl.gradnorm_history(path)
    assert found.scalars["nonfinite_steps"] == 1
    assert found.conditions == {"nonfinite": True}
    assert "!" in GRADNORM_HISTORY.picture(found, Terminal())


class Two(nn.Module):
    """An encoder and a decoder, of which one may stay unused."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(3, 4), nn.LSTM(3, 5)

    def forward(self, x, which):
        return getattr(self, which)(x)[0].square().sum()


def test_only_weights_that_the_pass_came_to_have_a_line(path):
    model = seeded(Two)
    with rnnctl.watch(model, every=1, to=path):
        for which in ("encoder", "decoder", "encoder"):
            model(torch.ones(4, 2, 3), which).backward()
    assert [(line["step"], line["weight"]) for line in lines(path)] == [
        (0, "encoder.weight_hh_l0"),
        (1, "decoder.weight_hh_l0"),
        (2, "encoder.weight_hh_l0"),
    ]
    found = rnnctl.gradnorm_history(path, "decoder")
    assert (found.weight, found.cell, found.steps) == ("decoder.weight_hh_l0", "LSTM", (1,))
    assert found.other_weights == ("encoder.weight_hh_l0",)


def test_only_narrows_what_is_watched(path):
    model = seeded(Two)
    with rnnctl.watch(model, every=1, to=path, only="decoder.*") as watching:
        model(torch.ones(4, 2, 3), "encoder").backward()
        model(torch.ones(4, 2, 3), "decoder").backward()
    assert watching.steps == 1
    assert [line["weight"] for line in lines(path)] == ["decoder.weight_hh_l0"]


def test_a_linear_map_named_by_the_user_is_watched(path):
    torch.manual_seed(0)
    model = nn.ModuleDict({"x": nn.Linear(3, 4), "h": nn.Linear(4, 4, bias=False)})
    with rnnctl.watch(model, every=1, to=path):
        h = torch.zeros(2, 4)
        for x_t in inputs(0).unbind(1):
            h = torch.tanh(model["x"](x_t) + model["h"](h))
        h.sum().backward()
    (line,) = lines(path)
    assert (line["weight"], line["cell"], line["agrees"]) == ("h.weight", "Linear", True)
    assert 0 < rnnctl.gradnorm_history(path).scalars["reach_at_last_step"] < 1


def test_packed_batches_may_change_in_length(path):
    model = nn.LSTM(3, 4)
    with rnnctl.watch(model, every=1, to=path):
        for lengths in ([5, 3], [2, 1], [7, 7]):
            packed = pack_padded_sequence(torch.randn(max(lengths), 2, 3), lengths)
            model(packed)[0].data.square().sum().backward()
    found = rnnctl.gradnorm_history(path)
    assert found.lengths == (5, 2, 7)
    assert found.grad_norm_W_hh.shape == (3, 7)
    assert found.grad_norm_W_hh.isnan().sum(1).tolist() == [2, 5, 0]
    assert (found.scalars["nonfinite_steps"], found.scalars["time_steps"]) == (0, 7)
    assert len(found.rows) == 14
    assert "!" not in GRADNORM_HISTORY.picture(found, Terminal())


def test_a_loss_on_the_last_state_alone_is_noticed(path):
    model = nn.LSTM(3, 4)
    with rnnctl.watch(model, every=1, to=path) as watching:
        model(torch.ones(4, 2, 3))[1][1].sum().backward()
    assert watching.probed == 1


def test_cells_in_a_loop_are_one_step_a_backward_pass(path):
    model = seeded(Stepped)
    with rnnctl.watch(model, every=2, to=path) as watching:
        train(model, 3)
    assert (watching.steps, watching.probed) == (3, 2)
    assert all(line["agrees"] and len(line["grad_norm_W_hh"]) == 6 for line in lines(path))


@pytest.mark.parametrize("carried", [True, False])
def test_of_the_steps_of_a_cell_only_the_first_is_listened_to(path, monkeypatch, carried):
    cell, listened = nn.GRUCell(3, 4), []
    called = rnnctl.Watch._called
    monkeypatch.setattr(rnnctl.Watch, "_called", lambda self, result: [listened.append(1), called(self, result)])
    with rnnctl.watch(cell, every=100, to=path) as watching:
        cell(torch.ones(2, 3)).sum().backward()
        listened.clear()
        state = None
        for x_t in inputs(1).unbind(1):
            state = cell(x_t, state)
            if not carried:
                state.detach_()
        assert len(listened) == (1 if carried else 6)
        cell(torch.ones(2, 3), state).sum().backward()
    assert watching.steps == 2


def test_a_result_changed_in_place_is_noticed_all_the_same(path):
    model = nn.RNN(3, 4)
    with rnnctl.watch(model, every=1, to=path) as watching:
        # Without a batch the output is a view.
        output, _ = model(inputs(0)[0])
        output.mul_(2)
        output.sum().backward()
    assert watching.probed == 1
    assert lines(path)[0]["agrees"]


def test_two_passes_over_one_graph_are_two_steps_and_the_first_is_probed(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path) as watching:
        found = model(inputs(0))
        found.sum().backward(retain_graph=True)
        found.square().sum().backward()
        model(inputs(1)).sum().backward()
    assert (watching.steps, watching.probed) == (3, 2)
    assert steps_of(path) == [0, 2]
    assert all(line["agrees"] for line in lines(path))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_of_torch_are_part_of_one_step(path, reentrant):
    first, second = seeded(nn.GRU, 3, 3), nn.LSTM(3, 3)
    model = nn.ModuleDict({"first": first, "second": second})
    with rnnctl.watch(model, every=1, to=path) as watching:
        for step in range(2):
            x = inputs(step).requires_grad_()
            h = checkpoint(lambda x: first(x)[0], x, use_reentrant=reentrant)
            checkpoint(lambda h: second(h)[0], h, use_reentrant=reentrant).square().sum().backward()
    assert watching.steps == 2
    assert [(line["step"], line["weight"], line["agrees"], line["steps_per_call"]) for line in lines(path)] == [
        (step, f"{name}.weight_hh_l0", True, [2]) for step in range(2) for name in ("first", "second")
    ]


def test_double_backward_is_a_line_with_the_reason_and_training_goes_on(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path) as watching:
        x = inputs(0).requires_grad_()
        (penalty,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        penalty.square().sum().backward()
        train(model, 1)
    assert (watching.steps, steps_of(path)) == (2, [0, 1])
    assert [line["weight"] for line in lines(path) if "double backward" in line.get("error", "")] == NAMES
    found = rnnctl.gradnorm_history(path)
    assert (found.steps, found.scalars["failed_steps"]) == ((1,), 1)
    assert "double backward" in found.more["failed"][0]["error"]


def test_a_probe_that_fails_by_itself_leaves_training_alone(path, monkeypatch):
    def failing(*arguments, **more):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("rnnctl.gradients.watch.probed", failing)
    model = seeded()
    with rnnctl.watch(model, every=1, to=path) as watching:
        train(model, 2)
    assert watching.steps == 2
    assert {line["error"] for line in lines(path)} == {"ZeroDivisionError: a bug"}
    with pytest.raises(InputError, match="core.weight_hh_l0 could not be probed at any step: Zero"):
        rnnctl.gradnorm_history(path)


def test_a_backward_pass_that_fails_is_no_step(path):
    model = seeded()
    fail = model.core.weight_ih_l0.register_hook(lambda grad: 1 / 0)
    with rnnctl.watch(model, every=1, to=path) as watching:
        with pytest.raises(ZeroDivisionError, match="division"):
            train(model, 1)
        fail.remove()
        train(model, 2)
    assert (watching.steps, watching.probed) == (2, 2)
    assert all(line["agrees"] and line["steps_per_call"] == [6] for line in lines(path))


def test_an_interrupt_while_probing_ends_training_and_nothing_else(path, monkeypatch):
    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("rnnctl.gradients.watch.probed", interrupted)
    model = seeded()
    with pytest.raises(KeyboardInterrupt), rnnctl.watch(model, every=1, to=path):  # noqa: PT012
        train(model, 2)
    assert hooks(model) == 0


def test_models_are_copied_and_saved_within_the_block_as_ever(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path) as watching:
        train(model, 1)
        average = copy.deepcopy(model)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        for other in (average, loaded):
            other(inputs(0)).sum().backward()
    assert watching.steps == 1


def test_backward_after_the_block_is_not_noticed(path):
    model = seeded()
    with rnnctl.watch(model, every=1, to=path) as watching:
        model(inputs(0)).sum().backward()
        later = model(inputs(1)).sum()
    later.backward()
    assert watching.steps == 1
    assert steps_of(path) == [0]


def test_a_full_disk_ends_the_watch_and_not_the_training():
    model = seeded()
    with rnnctl.watch(model, every=1, to="/dev/full") as watching:
        with pytest.warns(RuntimeWarning, match=r"rnnctl.watch ends here: cannot write '/dev/full': No space left"):
            train(model, 1)
        assert hooks(model) == 0
        train(model, 2)
    assert watching.probed == 0


def bits(model, losses):
    return [*losses, *model.state_dict().values(), *(each.grad for each in model.parameters()), torch.get_rng_state()]


@contextmanager
def small_files(bytes_each):
    """No file of this process may grow beyond so many."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_each, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


ACCIDENTS = {
    "a full disk": ("/dev/full", lambda folder: nullcontext(), 0, "No space left on device"),
    "a file that may not grow": ("run/run.jsonl", lambda folder: small_files(7000), 1, "File too large"),
    "a folder that vanishes": ("run/run.jsonl", lambda folder: nullcontext(), 2, "the file was deleted, with all that"),
}


@pytest.mark.parametrize("warned", ["warned", "warnings are errors"])
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_accident_to_the_file_leaves_training_bit_for_bit_and_is_told(tmp_path, accident, warned):
    place, limited, lost_from, why = ACCIDENTS[accident]
    folder = tmp_path / "run"
    folder.mkdir()

    def vanish(step):
        if step == 2 and "vanishes" in accident:
            shutil.rmtree(folder)

    plain = seeded()
    expected = bits(plain, train(plain, 5))
    model = seeded()
    with warnings.catch_warnings(record=warned == "warned") as seen:
        warnings.simplefilter("always" if warned == "warned" else "error")
        with limited(folder), rnnctl.watch(model, every=1, to=tmp_path / place) as watching:
            losses = train(model, 5, vanish)
    assert all(torch.equal(one, other) for one, other in zip(expected, bits(model, losses), strict=True))
    assert watching.probed == lost_from
    (note,) = watching.notes
    assert why in note
    assert note.endswith(f"; training step {lost_from} and those after it are not in the file")
    assert seen is None or [str(each.message) for each in seen] == [note]


def test_a_model_that_becomes_one_that_cannot_be_probed_is_trained_on(path):
    model = seeded()
    with (
        pytest.warns(RuntimeWarning, match="rnnctl.watch ends here: InputError: .*TorchScript.*training step 2 and"),
        rnnctl.watch(model, every=2, to=path) as watching,
    ):
        train(model, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.readout = torch.jit.script(model.readout)
        train(model, 2)
    assert (watching.steps, len(watching.notes)) == (2, 1)
    assert hooks(model) == 0
    assert steps_of(path) == [0]


def test_lines_that_closing_loses_are_told(path, monkeypatch):
    def failing(self):
        self._file.close()
        raise RnnctlError("cannot close it")

    monkeypatch.setattr("rnnctl.files.jsonl.LineWriter.close", failing)
    model = seeded()
    with (
        pytest.warns(RuntimeWarning, match="lost lines: cannot close it"),
        rnnctl.watch(model, every=1, to=path) as watching,
    ):
        train(model, 1)
    assert watching.notes == ("rnnctl.watch lost lines: cannot close it",)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_autocast_around_backward_does_not_reach_the_sweep(path, kind):
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = kind(8, 128)
        with rnnctl.watch(model, every=1, to=path):
            loss = model(torch.randn(5, 4, 8))[0].square().sum()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss.backward()
        found.append(rnnctl.gradnorm_history(path).grad_norm_W_hh)
    torch.testing.assert_close(*found)


def test_no_step_within_the_block_is_an_error_that_says_why(path):
    model = seeded()
    with pytest.raises(InputError, match="was not called within the block"), rnnctl.watch(model, to=path):
        pass
    with pytest.raises(InputError, match="no gradient reached it"), rnnctl.watch(model, to=path):
        model(inputs(0))
    with pytest.raises(InputError, match="called without gradients"), rnnctl.watch(model, to=path), torch.no_grad():
        model(inputs(0))
    with pytest.raises(ValueError, match="mine"), rnnctl.watch(model, to=path):
        raise ValueError("mine")


def test_what_can_be_refused_is_refused_before_training(tmp_path):
    model = seeded()
    for every in (0, -1, 2.0, True, "3"):
        with pytest.raises(InputError, match="every must be a whole number"), rnnctl.watch(model, every=every, to="x"):
            pytest.fail("entered")
    for place, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "run.jsonl", "there is no folder")):
        with pytest.raises(InputError, match=message), rnnctl.watch(model, to=place):
            pytest.fail("entered")
    with pytest.raises(InputError, match="no recurrent module"), rnnctl.watch(model.readout, to=tmp_path / "x"):
        pytest.fail("entered")
    with pytest.raises(InputError, match="matches no recurrent weight"):
        rnnctl.watch(model, only="nothing", to=tmp_path / "x").__enter__()
    assert list(tmp_path.iterdir()) == []
    assert hooks(model) == 0


def test_a_compiled_model_is_refused_before_training(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(seeded())
    with pytest.raises(InputError, match="is compiled"), rnnctl.watch(compiled, to=path):
        pytest.fail("entered")
    assert not path.exists()


# What is read.


def line(**changes):
    good = {
        "schema": "rnnctl.watch",
        "schema_version": 1,
        "run": "2026-01-01T00:00:00+00:00",
        "step": 0,
        "weight": "lstm.weight_hh_l0",
        "cell": "LSTM",
        "grad_norm_W_hh": [0.0, 3.0, 4.0],
        "grad_norm_h": [0.5, 1.0, 2.0],
        "autograd_relative_error": 1e-8,
        "agrees": True,
        "states_agree": True,
        "h_init_is_zero": True,
    }
    return json.dumps({**good, **changes}) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: no training step was probed"),
        ("\n \n", "is empty"),
        ('{"schema"', "holds no line of rnnctl.watch"),
        ("a,b\n1,2\n", "line 1 is no JSON object. Is this a file that rnnctl.watch wrote"),
        ("[1]\n[2]\n", "line 1 is no JSON object"),
        ("[" * 100_000 + "\n1\n", "line 1 is no JSON object"),
        ('{"t": 0}\n', "line 1: expected the schema 'rnnctl.watch', as rnnctl.watch writes it; got None"),
        (line(schema="rnnctl.gradnorm"), "got 'rnnctl.gradnorm'"),
        (line(schema_version=2), "expected schema_version 1; got 2"),
        (line(run=3), "expected a text under 'run'; got 3"),
        (line() + line(step="1"), "line 2: expected a whole number under 'step'; got '1'"),
        (line(step=True), "expected a whole number under 'step'; got 'True'"),
        (line(weight=None), "expected a text under 'weight'"),
        (line(grad_norm_W_hh=[]), "expected numbers or null, one a time step, under 'grad_norm_W_hh'"),
        (line(grad_norm_h=["1", 2, 3]), "under 'grad_norm_h'"),
        (line(grad_norm_h=[1.0]), "grad_norm_W_hh has 3 time steps, grad_norm_h 1"),
        (line(grad_norm_h=[10**400, 1, 1]), "a number under 'grad_norm_h' is beyond float64"),
        (line(agrees="yes"), "expected true or false under 'agrees'; got 'yes'"),
        (line(states_agree=None), "expected true or false under 'states_agree'"),
        (line(autograd_relative_error="0"), "expected a number under 'autograd_relative_error'"),
    ],
)
def test_what_is_no_file_of_watch_is_refused_by_line(path, text, message):
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        rnnctl.gradnorm_history(path)
    assert message in str(refused.value)


FLAWS = {
    "a negative norm": ({"grad_norm_W_hh": [0.0, -3.0, 4.0]}, "grad_norm_W_hh is negative or not finite"),
    "an infinite norm": ({"grad_norm_h": [0.5, math.inf, 1]}, "grad_norm_h is negative or not finite"),
    "a norm that is no number": ({"grad_norm_W_hh": [0, math.nan, 1]}, "grad_norm_W_hh is negative or not finite"),
    "a negative norm of c": ({"grad_norm_c": [1, 1, -1e-300]}, "grad_norm_c is negative or not finite"),
    "a negative norm of the state": ({"grad_norm_state": [-1, 1, 1]}, "grad_norm_state is negative or not finite"),
    "a negative error": ({"autograd_relative_error": -1}, "autograd_relative_error is negative or not finite"),
    "an infinite error": ({"autograd_relative_error": math.inf}, "autograd_relative_error is negative or not finite"),
    "a negative step": ({"step": -1}, "step is not a count from 0 to 2^63 - 1"),
    "a step beyond 64 bits": ({"step": 2**63}, "step is not a count from 0 to 2^63 - 1"),
    "a failed step beyond 64 bits": ({"step": 10**30, "error": "why"}, "step is not a count from 0 to 2^63 - 1"),
    "chains beyond 64 bits": ({"chains": 2**64}, "chains is not a count from 1 to 2^63 - 1"),
    "no chain": ({"chains": 0}, "chains is not a count from 1 to 2^63 - 1"),
    "a step that is there twice": ({"step": 10}, "its training step was there before, of the same weight"),
    "a step too late": ({"step": 7}, "its training step is before that of the line before it"),
    "a failed step too late": ({"step": 7, "error": "why"}, "its training step is before that of the line before it"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_line_that_says_what_cannot_be_is_named_and_left_out(path, flaw, capsys):
    changes, why = FLAWS[flaw]
    path.write_text(line() + line(step=10) + line(**{"step": 20, **changes}) + line(step=30))
    found = rnnctl.gradnorm_history(path)
    assert found.steps == (0, 10, 30)
    assert found.failed == ()
    assert found.notes[0] == f"{path}, line 3 is left out: {why}"
    assert [row["step"] for row in found.more["by_step"]] == [0, 10, 30]
    assert f"line 3 is left out: {why}" in " ".join(shown(path, capsys).err.split())
    assert json.loads(shown(path, capsys, "--json").out)["scalars"]["last_step"] == 30


def test_the_largest_count_and_null_for_what_is_not_finite_are_kept(path):
    found = history(path, line(grad_norm_h=[None, 0, 1e300]), line(step=2**63 - 1, chains=2**63 - 1))
    assert found.steps == (0, 2**63 - 1)
    assert not any("left out" in note for note in found.notes)


def test_steps_are_in_order_within_a_run_and_not_between_runs_or_weights(path):
    found = history(path, line(step=50), line(run="2027"), line(run="2027", weight="b"), line(run="2027", step=1))
    assert (found.run, found.steps) == ("2027", (0, 1))
    assert not any("left out" in note for note in found.notes)


def test_of_many_such_lines_the_first_are_named_and_the_rest_counted(path):
    found = history(path, line(), *[line(step=-1)] * 12)
    named = [note for note in found.notes if "is left out" in note]
    assert [f"line {number} " in note for number, note in enumerate(named, 2)] == [True] * 5
    assert "so are 7 more lines: step is not a count from 0 to 2^63 - 1" in found.notes


def test_a_run_of_such_lines_alone_is_refused(path):
    path.write_text(line() + line(run="2027", step=-1))
    with pytest.raises(InputError, match="no line of the last run can be used: .*line 2 is left out: step is not"):
        rnnctl.gradnorm_history(path)


def test_norms_that_are_no_numbers_never_agree(path):
    found = history(path, line(grad_norm_W_hh=[0.0, None, 1.0]), line(step=10))
    assert [row["agrees"] for row in found.more["by_step"]] == [None, True]


def test_a_missing_file_and_an_unknown_weight_are_refused(path):
    with pytest.raises(InputError, match="there is no file"):
        rnnctl.gradnorm_history(path)
    path.write_text(line())
    with pytest.raises(InputError, match=r"no recurrent weight 'lst.*it has lstm.weight_hh_l0\. Did you mean lstm"):
        rnnctl.gradnorm_history(path, "lst.weight_hh_l0")


def history(path, *records):
    path.write_text("".join(records))
    return rnnctl.gradnorm_history(path)


def test_scalars_worked_by_hand(path):
    found = history(
        path,
        line(),
        line(step=10, grad_norm_W_hh=[0, 5.0], grad_norm_h=[3, 2], agrees=False),
        line(step=20, error="double backward: why"),
        line(step=30, grad_norm_W_hh=[0.0, 1.0, None], grad_norm_h=[None, 1.0, 1.0], agrees=None, states_agree=False),
    )
    assert found.scalars == {
        "weight": "lstm.weight_hh_l0",
        "cell": "LSTM",
        "other_weights": "none",
        "run": "2026-01-01T00:00:00+00:00",
        "probed_steps": 3,
        "first_step": 0,
        "last_step": 30,
        "time_steps": 3,
        "largest_norm": 5.0,
        "reach_at_first_step": 0.25,
        "reach_at_last_step": None,
        "nonfinite_steps": 1,
        "disagreements": 2,
        "failed_steps": 1,
        "h_init_is_zero": True,
    }
    by_step = found.more["by_step"]
    assert [row["largest_norm"] for row in by_step] == [4.0, 5.0, None]
    assert [row["at_t"] for row in by_step] == [2, 1, None]
    assert found.rows[3] == {"step": 10, "t": 0, "grad_norm_W_hh": 0.0, "grad_norm_h": 3.0}
    assert found.more["failed"] == [{"step": 20, "error": "double backward: why"}]


def test_the_far_end_of_a_reverse_direction_is_the_last_time_step(path):
    found = history(path, line(weight="lstm.weight_hh_l0_reverse"))
    assert found.scalars["reach_at_first_step"] == 4.0


def test_the_weight_that_is_shown_by_itself_is_one_that_was_probed(path):
    assert history(path, line(weight="a", error="refused"), line(weight="b")).weight == "b"


# What is shown.


def test_the_heat_map_has_training_steps_down_by_their_own_numbers(path):
    found = history(path, line(), line(step=1500, grad_norm_W_hh=[0, 1e-3], grad_norm_h=[1, 1]))
    drawn = GRADNORM_HISTORY.picture(found, Terminal()).splitlines()
    assert drawn[0] == "grad_norm_W_hh: training step down, time step t across"
    assert [row.split() for row in drawn[2:4]] == [["0", "@@"], ["1500", "."]]


def test_the_figure_has_training_steps_by_their_own_numbers(path):
    found = history(path, line(), line(step=1500), line(step=3000, grad_norm_W_hh=[None], grad_norm_h=[1]))
    figure = FIGURES["gradnorm-history"](found)
    axes, bar = figure.axes
    figure.canvas.draw()
    assert [text for text in (label.get_text() for label in axes.get_yticklabels()) if text] == ["0", "1500", "3000"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time step t", "training step")
    assert bar.get_ylabel() == "grad_norm_W_hh of lstm.weight_hh_l0"
    shown = axes.images[0].get_array()
    assert shown[0].tolist()[1:] == [3.0, 4.0]
    assert [shown.mask[0, 0], *shown.mask[2]] == [True] * 4


def shown(path, capsys, *flags, code=0):
    capsys.readouterr()
    assert main(["gradnorm", "--from", str(path), *map(str, flags)]) == code
    return capsys.readouterr()


def test_the_history_is_shown_in_every_format(path, capsys):
    two_runs(path)
    table = shown(path, capsys)
    assert table.out.startswith(f"gradnorm-history: {path}\n")
    assert "core.weight_hh_l0_reverse, core.weight_hh_l1" in table.out
    assert "holds 2 runs" in table.err
    assert shown(path, capsys, "-q").err == ""
    found = json.loads(shown(path, capsys, "--json", "--module", "core.weight_hh_l1").out)
    assert (found["schema"], found["scalars"]["weight"]) == ("rnnctl.gradnorm-history", "core.weight_hh_l1")
    assert (len(found["rows"]), len(found["by_step"]), found["failed"]) == (30, 5, [])
    csv = shown(path, capsys, "--format", "csv").out.splitlines()
    assert (csv[0], len(csv)) == ("step,t,grad_norm_W_hh,grad_norm_h", 31)
    assert len(shown(path, capsys, "--format", "jsonl").out.splitlines()) == 30


def test_the_history_is_drawn_and_judged(path, tmp_path, capsys):
    path.write_text(line() + line(step=10, agrees=False))
    assert "wrote" in shown(path, capsys, "--plot", tmp_path / "history.png").err
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")
    shown(path, capsys, "--fail-on", "disagreements>0", code=3)
    shown(path, capsys, "--fail-on", "nonfinite")
    assert "is read by this very command" in shown(path, capsys, "-o", path, "--force", code=2).err


def test_steps_that_failed_are_shown_with_the_reason(path, capsys):
    path.write_text(line() + line(step=10, error="double backward: why"))
    assert "double backward: why" in shown(path, capsys).out


# The example of the README.


def test_an_lstm_learns_the_sunspots_and_its_run_is_shown(path, capsys):
    class Forecast(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.readout = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 1)

        def forward(self, x):
            return self.readout(self.lstm(x)[0])

    torch.manual_seed(0)
    years = rnnctl.bundled_sequence("sunspots", standardize=True)
    model, losses = Forecast(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with rnnctl.watch(model, every=10, to=path) as watching:
        for _ in range(60):
            loss = nn.functional.mse_loss(model(years[:, :-1]), years[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert (watching.steps, watching.probed) == (60, 6)
    assert steps_of(path) == [0, 10, 20, 30, 40, 50]
    found = rnnctl.gradnorm_history(path)
    assert found.grad_norm_W_hh.shape == (6, 308)
    assert found.scalars["disagreements"] == 0
    assert "\n     50 " in shown(path, capsys).out


def test_bundled_sequences_are_tensors_of_numbers_alone():
    years = rnnctl.bundled_sequence("sunspots")
    assert (years.shape, years.dtype) == ((1, 309, 1), torch.float32)
    assert years[0, 0, 0] == 5.0
    economy = rnnctl.bundled_sequence("macrodata", standardize=True)
    assert economy.shape == (1, 203, 12)
    torch.testing.assert_close(economy.std(1, correction=0), torch.ones(1, 12))
    with pytest.raises(InputError, match="Did you mean sunspots"):
        rnnctl.bundled_sequence("sunspot")


def test_of_several_sequences_at_one_step_there_is_no_one_reach(path):
    model = nn.GRU(3, 4, batch_first=True)
    with rnnctl.watch(model, every=1, to=path):
        (model(inputs(0))[0].sum() + 1e-5 * model(inputs(1))[0].sum()).backward()
    assert lines(path)[0]["chains"] == 2
    found = rnnctl.gradnorm_history(path)
    assert found.scalars["reach_at_first_step"] is None
    assert "of several sequences" in found.why["reach_at_first_step"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_module_that_is_wholly_frozen_is_named_as_the_reason(path, kind):
    model = nn.Sequential(nn.Linear(3, 3), kind(3, 4, batch_first=True))
    model[1].requires_grad_(False)
    with (
        pytest.raises(InputError, match=r"brought nothing to 1\.weight_hh_l0, .*requires_grad=False"),
        rnnctl.watch(model, every=1, to=path),
    ):
        model(inputs(0))[0].sum().backward()


@pytest.mark.parametrize("to", [None, 3, b"run.jsonl"])
def test_a_place_that_is_no_path_is_refused(to):
    with pytest.raises(InputError, match="to must be a path"), rnnctl.watch(nn.GRU(1, 1), every=1, to=to):
        pass


def test_names_of_a_run_file_reach_no_terminal_as_they_are(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    trained(path)
    path.write_text(path.read_text().replace('"weight_hh_l0"', json.dumps("\x1b[31mw\u202e")))
    assert main(["gradnorm", "--from", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[31mw\\u202e" in out


def test_a_line_that_agrees_and_is_wholly_off_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    trained(path)
    first, *rest = map(json.loads, path.read_text().splitlines())
    first["autograd_relative_error"] = 1e300
    path.write_text("".join(json.dumps(each) + "\n" for each in (first, *rest)))
    found = rnnctl.gradnorm_history(path)
    assert len(found.steps) == len(rest)
    assert any("line 1" in note and "above 1" in note for note in found.notes)


def trained(path):
    """A file of a training of four steps, each probed."""
    torch.manual_seed(0)
    model = nn.GRU(3, 4)
    with rnnctl.watch(model, every=1, to=path):
        for _ in range(4):
            model(torch.randn(5, 2, 3))[0].square().sum().backward()
