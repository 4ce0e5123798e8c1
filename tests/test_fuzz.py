"""Real files with something wrong in them: an answer or our own error, no warning, little memory, little time."""

import functools
import io
import json
import random
import re
import resource
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import nn

import rnnctl
from rnnctl.__main__ import main
from rnnctl.benchmark.comparison import run_before
from rnnctl.benchmark.gradnorm import CASES
from rnnctl.data import bundled_csv
from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.arrays import Reader, read_lengths, read_sequences, read_target
from rnnctl.files.checkpoints import load_into, read_checkpoint
from rnnctl.files.reading import parsing
from rnnctl.files.reports import read_report
from rnnctl.files.typed import keyword_arguments
from rnnctl.files.weights import read_weights
from rnnctl.gradients.history import gradnorm_history
from rnnctl.view.machine import SCHEMA_VERSION

# Files that differ from one another and from the real one, of each kind at least so many, of all at least 2,000.
MUTATIONS, LEAST = 130, 90
SECONDS, BYTES = 2.0, 2**30
# What stands in a header or a record in place of what stood there.
NUMBERS = [b"-1", b"0", b"16", b"1e308", b"-1e308", b"1e999", b"9" * 25, b"9" * 5000, b"NaN"]
WORDS = [*NUMBERS, b"null", b"true", b'"x"', b"[]", b"{}", b"[" * 3000, b""]
WORD = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z_]+")


class Change(NamedTuple):
    """One thing that is done to a file, at a place that is a share of its length; what is left over says nothing."""

    kind: str
    at: float
    size: int
    word: bytes

    def of(self, data: bytes) -> bytes:
        """The file with it."""
        place = int(self.at * len(data))
        head, part, rest = data[:place], data[place : place + self.size], data[place + self.size :]
        changed = {
            "flip": lambda: head + bytes(byte ^ (1 << self.size % 8) for byte in part[:1]) + part[1:] + rest,
            "cut": lambda: head,
            "lose": lambda: head + rest,
            "repeat": lambda: head + part * 2 + rest,
            "swap": lambda: rest + part + head,
            "zeros": lambda: head + bytes(self.size) + part + rest,
            "number": lambda: head + (2 ** (8 * (self.size % 8)) - 1).to_bytes(8, "little") + data[place + 8 :],
            "word": lambda: self._with_word(data),
        }
        return changed[self.kind]()

    def _with_word(self, data: bytes) -> bytes:
        found = list(WORD.finditer(data))
        if not found:
            return data
        chosen = found[int(self.at * len(found))]
        return data[: chosen.start()] + self.word + data[chosen.end() :]


KINDS = ["flip", "cut", "lose", "repeat", "swap", "zeros", "number", "word"]


def changes_of(seed: int) -> list[Change]:
    """One to three changes, half of them at the beginning, where headers are."""
    # Hypothesis by itself draws the same few places again and again.
    chance = random.Random(seed)
    places = (chance.random() * chance.choice((0.1, 1.0)) for _ in range(chance.randint(1, 3)))
    return [Change(chance.choice(KINDS), at, chance.randint(1, 40), chance.choice(WORDS)) for at in places]


class TooSlow(BaseException):
    """More time of the processor than a file may take; no parser takes it for an error of the file."""


@contextmanager
def within_limits() -> Iterator[None]:
    """Within, no more than so much memory beyond what there is already."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def in_time() -> Iterator[None]:
    """Within, no more than so much time of the processor."""

    def too_slow(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(load: Callable[[Path], Any], path: Path) -> None:
    """An answer or our own error, of which memory is not the hidden cause."""
    try:
        with in_time():
            load(path)
    except RnnctlError as error:
        cause: BaseException | None = error
        while cause is not None:
            # A parser's word for it would be taken for one about a broken file.
            assert not isinstance(cause, MemoryError), "it took too much memory"
            assert "allocate memory" not in str(cause)
            cause = cause.__cause__ or cause.__context__


class Readable(NamedTuple):
    """A real file, or the part of one that is changed; what makes a file of that part; and what reads it."""

    data: bytes
    load: Callable[[Path], Any]
    suffix: str
    whole: Callable[[bytes], bytes] = bytes


def saved(value: Any, **options: Any) -> bytes:
    held = io.BytesIO()
    torch.save(value, held, **options)
    return held.getvalue()


def numpy_saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    held = io.BytesIO()
    save(held, *arrays, **named)
    return held.getvalue()


def part_of(archive: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return found.read(name)


def with_part(archive: bytes, name: str, part: bytes) -> bytes:
    """The archive with another part, and its right checksum."""
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as found, zipfile.ZipFile(held, "w") as made:
        for each in found.namelist():
            made.writestr(each, part if each == name else found.read(each))
    return held.getvalue()


def sequences(path: Path) -> Any:
    return read_sequences(str(path), ragged=True)


def any_sequences(path: Path) -> Any:
    return read_sequences(str(path), tokens=True, key="a" if path.suffix == ".npz" else None)


def configured(path: Path) -> None:
    assert main(["gradnorm", "--quiet", "--show-config", "--only", "rows", "--config", str(path)]) in (0, 2)


def history(path: Path) -> Any:
    found = gradnorm_history(path)
    return found.scalars, found.rows, found.more, found.why, found.conditions, found.notes


class Tiny(nn.Module):
    """A layer and a readout, with what a checkpoint of it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.LSTM(2, 3)
        self.readout = nn.Linear(3, 1)


def keywords(path: Path) -> Any:
    return keyword_arguments(path.read_bytes().decode("utf-8", "replace").split("\n"))


def report(folder: Path) -> bytes:
    """What ``bench --save`` writes."""
    path = folder / "report.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnnctl.benchmark.gradnorm.medians", lambda runs, *_: dict.fromkeys(runs, 0.5))
        assert main(f"bench --hidden-size 3 --no-memory --quiet --save {path} -o {folder / 'shown'}".split()) == 0
    return path.read_bytes()


def against(saved_report: bytes) -> Callable[[Path], Any]:
    """Reads a report that a run such as the saved one is to be compared with."""
    now = json.loads(saved_report)

    def read(path: Path) -> Any:
        found = read_report(path, "rnnctl bench --save", SCHEMA_VERSION)
        return run_before(found, CASES, [row["case"] for row in now["rows"]], now["config"])

    return read


def run_file(folder: Path) -> bytes:
    """What ``rnnctl.watch`` writes of three training steps."""
    model, path = Tiny(), folder / "run.jsonl"
    with rnnctl.watch(model, to=path, every=1):
        for _ in range(3):
            model.readout(model.core(torch.ones(4, 2, 2))[0]).sum().backward()
    return path.read_bytes()


def text(lines: int, between: str, decimal: str) -> bytes:
    rows = [between.join((f"2020-01-{i + 1:02}", f"{i}{decimal}5", f"-{i}{decimal}25")) for i in range(lines)]
    return "\n".join([between.join(("day", "a", "b")), *rows, ""]).encode()


def in_parts() -> nn.Module:
    """A model whose recurrent weight is kept in two parts."""
    model = Tiny()
    nn.utils.parametrizations.weight_norm(model.core, "weight_hh_l0")
    return model


@functools.cache
def readable(folder: Path) -> dict[str, Readable]:
    """Real files of every kind, by a name for each."""
    torch.manual_seed(0)
    values, tokens = np.arange(24.0).reshape(2, 4, 3), np.arange(8).reshape(2, 4)
    npz, pt = numpy_saved(np.savez, a=values, b=tokens), saved(torch.ones(2, 3))
    elman = {**nn.RNN(2, 3).state_dict(), **{f"fc.{name}": part for name, part in nn.Linear(3, 1).state_dict().items()}}
    checkpoint = saved({"epoch": 3, "model_state_dict": Tiny().state_dict(), "args": {"lr": 0.1}})
    report_now, weights = report(folder), safetensors.torch.save(elman)
    return {
        "npy": Readable(numpy_saved(np.save, values), sequences, ".npy"),
        "tokens": Readable(numpy_saved(np.save, tokens), any_sequences, ".npy"),
        "npz": Readable(numpy_saved(np.savez_compressed, a=values, b=tokens), any_sequences, ".npz"),
        "npz within": Readable(
            part_of(npz, "a.npy"), any_sequences, ".npz", lambda part: with_part(npz, "a.npy", part)
        ),
        "pt": Readable(pt, any_sequences, ".pt"),
        "pt within": Readable(
            part_of(pt, "archive/data.pkl"), sequences, ".pt", lambda part: with_part(pt, "archive/data.pkl", part)
        ),
        "pt of old": Readable(saved(torch.ones(2, 3), _use_new_zipfile_serialization=False), sequences, ".pt"),
        "safetensors": Readable(safetensors.torch.save({"x": torch.ones(2, 3)}), sequences, ".safetensors"),
        "csv": Readable(text(20, ",", "."), sequences, ".csv"),
        "csv of elsewhere": Readable(text(20, ";", ","), sequences, ".txt"),
        "csv in UTF-16": Readable(text(9, "\t", ".").decode().encode("utf-16"), sequences, ".csv"),
        "csv that is bundled": Readable(b"\n".join(bundled_csv("macrodata").splitlines()[:15]), sequences, ".csv"),
        "lengths": Readable(b"3\n4\n17\n2\n" * 10, lambda path: read_lengths(path, 40, 17), ".csv"),
        "target": Readable(numpy_saved(np.save, tokens), lambda path: read_target(str(path), Reader()), ".npy"),
        "weights": Readable(weights, read_weights, ".safetensors"),
        "weights of ours": Readable(saved(rnnctl.FullRNN(2, 3, 1).state_dict()), read_weights, ".pt"),
        "checkpoint": Readable(checkpoint, lambda path: load_into(Tiny(), path), ".pt"),
        "checkpoint within": Readable(
            part_of(checkpoint, "archive/data.pkl"),
            lambda path: (load_into(Tiny(), path), read_checkpoint(path)),
            ".pt",
            lambda part: with_part(checkpoint, "archive/data.pkl", part),
        ),
        "checkpoint in parts": Readable(
            safetensors.torch.save(in_parts().state_dict()), lambda path: load_into(Tiny(), path), ".safetensors"
        ),
        "run file": Readable(run_file(folder), history, ".jsonl"),
        "report": Readable(report_now, against(report_now), ".json"),
        "configuration": Readable(CONFIGURATION, configured, ".toml"),
        "keywords": Readable(b"hidden=20\nname='a b'\nsizes=[1, 0x2, {a.b = 2020-01-01}]\nrate=1e-3", keywords, ""),
    }


CONFIGURATION = (Path(__file__).parents[1] / "configs" / "guide.toml").read_bytes()
NAMES = [
    *("npy", "tokens", "npz", "npz within", "pt", "pt within", "pt of old", "safetensors"),
    *("csv", "csv of elsewhere", "csv in UTF-16", "csv that is bundled", "lengths", "target"),
    *("weights", "weights of ours", "checkpoint", "checkpoint within", "checkpoint in parts"),
    *("run file", "report", "configuration", "keywords"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_at_least_2000_files_are_tried_of_every_kind_there_is(folder: Path) -> None:
    assert list(readable(folder)) == NAMES
    assert LEAST * len(NAMES) >= 2000


@pytest.mark.parametrize("name", NAMES)
def test_a_real_file_is_read(name: str, folder: Path) -> None:
    data, load, suffix, whole = readable(folder)[name]
    path = folder / f"real{suffix}"
    for each in (data, whole(data)):
        # A part alone is no file.
        if each is data and whole is not bytes:
            continue
        path.write_bytes(each)
        load(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_something_wrong_is_an_answer_or_our_own_error(name: str, folder: Path) -> None:
    data, load, suffix, whole = readable(folder)[name]
    path, tried = folder / f"changed{suffix}", set[bytes]()

    @settings(max_examples=MUTATIONS, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def changed(seed: int) -> None:
        note(str(changes := changes_of(seed)))
        found = functools.reduce(lambda held, change: change.of(held), changes, data)
        path.write_bytes(whole(found))
        tried.add(found)
        attempt(load, path)

    with within_limits():
        changed()
    assert len(tried - {data}) >= LEAST


# What the limits are worth


def in_a_parser(work: Callable[[], Any]) -> Callable[[Path], None]:
    """Reads nothing, and takes what goes wrong for an error of the file, as every loader does."""

    def load(path: Path) -> None:
        with parsing(str(path), "npy"):
            work()

    return load


def test_too_much_memory_is_seen_though_a_parser_takes_it_for_an_error_of_the_file() -> None:
    for work in (lambda: bytearray(BYTES + 2**27), lambda: torch.empty(BYTES + 2**27, dtype=torch.uint8)):
        with within_limits(), pytest.raises(AssertionError, match="memory"):
            attempt(in_a_parser(work), Path("x"))
    with within_limits():
        attempt(in_a_parser(lambda: bytearray(2**27)), Path("x"))


def for_ever() -> None:
    while True:
        pass


def test_too_much_time_is_seen_though_a_parser_takes_all_for_errors_of_the_file(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "SECONDS", 0.05)
    with pytest.raises(TooSlow):
        attempt(in_a_parser(for_ever), Path("x"))


def test_what_is_not_our_own_error_is_seen() -> None:
    def wrong(_: Path) -> None:
        raise KeyError("a")

    def warned(_: Path) -> None:
        warnings.warn("a", UserWarning, stacklevel=1)

    def refused(_: Path) -> None:
        raise InputError("a")

    with pytest.raises(KeyError, match="a"):
        attempt(wrong, Path("x"))
    with pytest.raises(UserWarning, match="a"):
        attempt(warned, Path("x"))
    attempt(refused, Path("x"))
