"""Files and configurations made badly, on purpose or not: one message, nothing lost, nothing left behind."""

import io
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import Run, runner

from rnnctl.cli.commands.gradnorm import GradnormOptions
from rnnctl.cli.options.completing import HEAD, _columns
from rnnctl.cli.options.mapping import options_from
from rnnctl.errors import InputError, RnnctlError
from rnnctl.files.arrays import read_sequences
from rnnctl.files.checkpoints import read_checkpoint
from rnnctl.files.toml import LARGEST, MOST_PARTS, parsed_toml
from rnnctl.files.writing import require_writable, write_whole

SHORT = "gradnorm --seq-len 2 --only scalars"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line in a folder of its own."""
    return runner(capsys, monkeypatch, tmp_path)


def refused(ran: Any, *words: str) -> None:
    """Exit 2 and one message of at most a few lines, which says all of these."""
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert ran.err.count("Error: ") == 1
    assert len(ran.err) < 3000
    for each in words:
        assert each in ran.err


# Configurations and --model-arg

VALUES = {
    "[" * 50_000: "nested too deeply",
    "{a = " * 50_000: "nested too deeply",
    "9" * 5000: "more than a thousand digits",
    "0x" + "f" * 5000: "more than a thousand digits",
    "[[0b" + "1" * 9000 + "]]": "more than a thousand digits",
    "{" + ".".join("a" * 50_000) + " = 1}": "more than 8 parts",
    "{'a' . " + '"b" . ' * 20 + "c = 1}": "more than 8 parts",
}


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_that_no_parser_gets_to_the_end_of_is_refused_in_a_file_and_as_a_keyword(value: str, run: Run) -> None:
    Path("bad.toml").write_text(f"seed = {value}")
    refused(run("gradnorm --config bad.toml"), "bad.toml: ", VALUES[value])
    refused(run("gradnorm --model torch.nn:LSTM", "--model-arg", f"x={value}"), "--model-arg 'x=", VALUES[value])


@pytest.mark.parametrize("key", ["{}=1", "[{}]", "[[{}]]", "a = {{{}=1}}"])
@pytest.mark.parametrize("part", ["a", "'a'", '"a"', "1-_"])
def test_a_key_of_many_parts_is_refused_wherever_it_stands_and_one_of_a_few_is_read(key: str, part: str) -> None:
    with pytest.raises(InputError, match=f"more than {MOST_PARTS} parts"):
        parsed_toml(key.format(" . ".join([part] * (MOST_PARTS + 1))))
    few = parsed_toml(key.format(".".join([part] * MOST_PARTS)))
    assert json.dumps(few).count("{") >= MOST_PARTS


@pytest.mark.parametrize("text", ["'{}'", '"{}"', "'''\n{}'''", '"""\n{}\n"""', "1 # {}", '[\'{}\', "\\"{}"]'])
def test_dots_in_a_text_or_a_comment_are_no_parts_of_a_key(text: str) -> None:
    dots = ".".join("abcdefghijklmnop")
    assert list(parsed_toml("title = " + text.replace("{}", dots))) == ["title"]


def test_a_configuration_is_at_most_1_mib_and_both_numbers_are_said(run: Run) -> None:
    Path("full.toml").write_text("seed = 3\n#" + "x" * (LARGEST - 10))
    assert run(f"{SHORT} --config full.toml").code == 0
    Path("over.toml").write_text("seed = 3\n#" + "x" * (LARGEST - 9))
    refused(run("gradnorm --config over.toml"), "'over.toml' holds 1,048,577 bytes; at most 1,048,576")


@pytest.mark.parametrize("line", ["seed = '{}'", "seed = {}", "{} = 1", "{} = '{}'"])
def test_a_message_does_not_repeat_a_long_text(line: str, run: Run) -> None:
    Path("long.toml").write_text(line.format("x" * 400_000, "y" * 400_000))
    refused(run("gradnorm --config long.toml"), "long.toml")


@pytest.mark.parametrize(
    "key", ["input", "plot", "output", "save-weights", "weights", "lengths", "target", "from", "title", "model"]
)
def test_a_null_byte_in_a_configuration_names_its_key(key: str, run: Run) -> None:
    Path("null.toml").write_text(f'[gradnorm]\n{key} = "a\\u0000b"')
    refused(run("gradnorm --config null.toml"), f"null.toml: {key} = 'a\\x00b'", "null byte")
    with pytest.raises(InputError, match="null byte"):
        options_from(GradnormOptions, {key: "a\0b"})


@pytest.mark.parametrize("flag", ["--input", "--target", "--plot", "-o", "--save-weights", "--config", "--lengths"])
def test_a_null_byte_in_a_path_is_no_traceback(flag: str, run: Run) -> None:
    refused(run("gradnorm", flag, "a\0b"))


def test_an_integer_that_python_would_not_write_is_refused_in_a_mapping() -> None:
    with pytest.raises(InputError, match="more than a thousand digits"):
        options_from(GradnormOptions, {"hidden-size": 10**5000})


# Without an end


class Endless(io.RawIOBase):
    """A stream of the same bytes for ever, that counts what was taken of it."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = b"1\n" * (len(buffer) // 2) + b"1" * (len(buffer) % 2)
        self.taken += len(buffer)
        return len(buffer)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnctl.files.reading.available_bytes", lambda: 2**24)


@pytest.mark.parametrize("kind", ["npy", "csv", "safetensors"])
def test_endless_standard_input_is_read_as_far_as_memory_allows(
    kind: str, run: Run, little_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Endless()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))
    refused(run(f"gradnorm --input - --input-format {kind}"), "standard input goes on after 3 MiB", "2 MiB", "16 MiB")
    assert stream.taken < 4 * 2**20


@pytest.fixture
def fed() -> Iterator[Callable[[Path, Callable[[int], None]], None]]:
    """Makes a pipe, and a thread that does something with its end as soon as somebody reads."""
    threads = []

    def feed(path: Path, write: Callable[[int], None]) -> None:
        def opened() -> None:
            end = os.open(path, os.O_WRONLY)
            try:
                write(end)
            except BrokenPipeError:
                pass
            finally:
                os.close(end)

        os.mkfifo(path)
        threads.append(threading.Thread(target=opened))
        threads[-1].start()

    yield feed
    for each in threads:
        each.join(20)
        assert not each.is_alive()


def for_ever(end: int) -> None:
    while True:
        os.write(end, b"x = 1\n" * 1000)


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("gradnorm --input pipe", "2 MiB"),
        ("gradnorm --from pipe", "2 MiB"),
        ("weights pipe", "2 MiB"),
        ("gradnorm --config pipe", "1,048,576"),
    ],
)
def test_an_endless_pipe_is_read_as_far_as_is_allowed(
    line: str, limit: str, run: Run, fed: Any, little_memory: None
) -> None:
    fed(Path("pipe"), for_ever)
    refused(run(line), "'pipe' goes on after ", limit)


def test_a_pipe_with_an_end_is_read_like_a_file(run: Run, fed: Any) -> None:
    fed(Path("pipe"), lambda end: os.write(end, b"1,2\n3,4\n" * 20_000))
    assert read_sequences("pipe").values.shape == (1, 40_000, 2)


@pytest.mark.parametrize("line", ["gradnorm --input pipe", "gradnorm --config pipe", "weights pipe"])
def test_a_pipe_that_says_nothing_is_waited_for_until_ctrl_c(
    line: str, run: Run, fed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def interrupt(end: int) -> None:
        # More than a pipe holds: when it is gone, somebody is reading.
        os.write(end, b"1\n" * 100_000)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(20)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fed(Path("pipe"), interrupt)
        assert run(line) == (130, "", "")
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)


def test_a_shell_that_completes_columns_does_not_read_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    try:
        # As much as is read of a file, so that whoever reads it does not wait.
        os.write(end, b"a,b\n" + b"1,2\n" * (HEAD // 4 - 1))
        assert _columns(str(path)) == ()
    finally:
        os.close(end)
    path.unlink()
    path.write_bytes(b"a,b\n1,2\n")
    assert _columns(str(path)) == ("a", "b")


def test_a_text_whose_table_would_not_fit_is_refused_before_it_is_made(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_bytes(b"1\n" * 50_000)
    monkeypatch.setattr("rnnctl.memory.available_bytes", lambda: 2**21)
    with pytest.raises(InputError, match=r"the table of .*long\.csv would take 5\.\d+ MiB of memory; 2 MiB is avail"):
        read_sequences(str(tmp_path / "long.csv"))


# Links, permissions, and what ends a process


@pytest.mark.parametrize(
    "line",
    [
        "gradnorm --input loop",
        "gradnorm --config loop",
        "gradnorm --weights loop",
        "gradnorm --from loop",
        "gradnorm --target loop.npy",
        "gradnorm --input sunspots --lengths loop",
        "gradnorm -o loop",
        "gradnorm -o loop --force",
        "gradnorm --plot loop.png --force",
        "gradnorm --save-weights loop.safetensors --force",
        "weights loop",
        "bench --against loop",
        "bench --save loop",
    ],
)
def test_a_link_to_itself_is_one_message_and_stays(line: str, run: Run) -> None:
    for name in ("loop", "loop.png", "loop.npy", "loop.safetensors"):
        os.symlink(name, name)
    refused(run(line), "Too many levels of symbolic links")
    assert all(path.is_symlink() for path in Path().iterdir())


@pytest.mark.parametrize(("more", "starts"), [("", "loss "), ("--json", "{"), ("--format csv", "loss,")])
def test_o_minus_is_standard_output_in_the_format_of_format(more: str, starts: str, run: Run) -> None:
    ran = run(f"{SHORT} --quiet -o - {more}")
    assert ran == run(f"{SHORT} --quiet {more}")
    assert starts in ran.out
    Path("out.toml").write_text("output = 'x.json'")
    assert run(f"{SHORT} --quiet --config out.toml -o - {more}") == ran
    assert not Path("-").exists()
    assert not Path("x.json").exists()


@pytest.mark.parametrize(
    "line", ["gradnorm --save-weights -", "bench --hidden-size 3 --no-memory --repeats 1 --save -", "gradnorm --plot -"]
)
def test_only_the_result_goes_to_standard_output(line: str, run: Run) -> None:
    refused(run(line), "'-'")
    assert not Path("-").exists()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755, 0o400])
def test_a_file_that_is_replaced_keeps_its_permissions(mode: int, run: Run) -> None:
    target = Path("x.json")
    target.write_text("old")
    target.chmod(mode)
    assert run(f"{SHORT} -o x.json --force").code == 0
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_text().startswith("{")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("mode", [0o640, 0o4755])
def test_a_file_that_is_replaced_keeps_its_owner_where_one_may_give_it(mode: int, tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.touch()
    os.chown(target, 1234, 2345)
    target.chmod(mode)
    write_whole(target, b"new")
    found = target.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, mode)


def test_an_owner_that_one_may_not_give_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", forbidden)
    target = tmp_path / "x"
    target.touch(0o640)
    assert write_whole(target, b"new") == f"wrote {target}"
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize(("others", "said"), [(1, "another name, a hard link,"), (2, "2 other names, hard links,")])
def test_hard_links_are_said(others: int, said: str, run: Run) -> None:
    Path("x.json").write_text("old")
    for i in range(others):
        os.link("x.json", f"other{i}")
    ran = run(f"{SHORT} -o x.json --force")
    assert ran.code == 0
    assert f"Note: wrote x.json; the file had {said}" in ran.err
    assert Path("other0").read_text() == "old"
    assert "hard link" not in run(f"{SHORT} -o x.json --force").err


def test_a_link_to_what_is_not_there_yet_makes_it_and_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    require_writable(tmp_path / "link", force=False)
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_the_content_is_on_disk_before_the_name_and_the_name_after_it(tmp_path: Path, monkeypatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes"
        done.append(kind)
        fsync(handle)

    def renamed(*paths: Any) -> None:
        done.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_whole(tmp_path / "x", b"12345")
    assert done == ["5 bytes", "name", "folder"]


# It has no torch to load.
ENDED = """
import os, sys
from pathlib import Path
from rnnctl.files.writing import write_whole
def killed(handle, sync=os.fsync):
    os.kill(os.getpid(), int(sys.argv[1]))
    sync(handle)
os.fsync = killed
write_whole(Path("x.json"), b"whole")
print("not reached")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_process_leaves_the_whole_file_and_no_other(number: int, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", ENDED, str(int(number))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        timeout=60,
    )
    # As of any process that ends by it: 128 and its number, where a shell tells.
    assert (found.returncode, found.stdout, found.stderr) == (-number, b"", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_bytes() == b"whole"


def test_whoever_handles_the_signal_themselves_goes_on_doing_so(tmp_path: Path, monkeypatch) -> None:
    came: list[int] = []
    fsync = os.fsync

    def killed(handle: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        fsync(handle)

    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    own = signal.getsignal(signal.SIGTERM)
    try:
        monkeypatch.setattr(os, "fsync", killed)
        write_whole(tmp_path / "x", b"new")
        assert set(came) == {signal.SIGTERM}
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_writes_as_well(tmp_path: Path) -> None:
    thread = threading.Thread(target=write_whole, args=(tmp_path / "x", b"new"))
    thread.start()
    thread.join(20)
    assert (tmp_path / "x").read_bytes() == b"new"


def test_what_is_no_path_is_our_own_error() -> None:
    with pytest.raises(RnnctlError, match="cannot write 'a\\\\x00b': embedded null byte"):
        write_whole(Path("a\0b"), b"new")


# Archives


def flipped(data: bytes, part: bytes) -> bytes:
    """The bytes with one bit of a part turned round."""
    at = data.index(part)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def saved(value: Any, **options: Any) -> bytes:
    held = io.BytesIO()
    torch.save(value, held, **options)
    return held.getvalue()


@pytest.mark.parametrize("shape", [(4,), (3, 5), (1, 300)])
def test_a_pt_file_with_a_flipped_bit_in_a_tensor_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    path = tmp_path / "w.pt"
    data = saved({"w": tensor})
    path.write_bytes(data)
    assert read_checkpoint(path).tensors["w"].equal(tensor)
    path.write_bytes(flipped(data, tensor.numpy().tobytes()))
    with pytest.raises(InputError, match=r"data/0 in it is damaged: its checksum is another one"):
        read_checkpoint(path)
    path.write_bytes(flipped(saved(tensor.double()), tensor.double().numpy().tobytes()))
    with pytest.raises(InputError, match="damaged"):
        read_sequences(str(path))


RUN: list[str] = []


class Told:
    """What unpickling runs something of."""

    def __reduce__(self) -> Any:
        return run_by_a_file, ("run",)


def run_by_a_file(word: str) -> None:
    RUN.append(word)


@pytest.mark.parametrize("line", ["gradnorm --input {}", "weights {}", "gradnorm --weights {}", "gradnorm --target {}"])
def test_no_file_is_unpickled_whatever_the_environment_says(line: str, run: Run, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    Path("x.pt").write_bytes(saved({"w": Told()}))
    Path("old.pt").write_bytes(saved(Told(), _use_new_zipfile_serialization=False))
    np.save("x.npy", np.array([Told()]), allow_pickle=True)
    for name in ("x.pt", "old.pt", "x.npy"):
        refused(run(line.format(name)), name)
    assert RUN == []
    pickle.loads(pickle.dumps(Told()))
    assert RUN.pop() == "run"


def test_a_pt_file_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        (tmp_path / "w.pt").write_bytes(saved({"w": torch.ones(3)}))
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_checkpoint(tmp_path / "w.pt").tensors["w"].tolist() == [1, 1, 1]


def repeated(data: bytes, name: str) -> bytes:
    """A zip archive with one of its parts a second time."""
    held = io.BytesIO(data)
    with zipfile.ZipFile(held, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, archive.read(name))
    return held.getvalue()


def test_an_archive_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.savez(held, a=np.ones((5, 2)), b=np.zeros(3))
    (tmp_path / "x.npz").write_bytes(repeated(held.getvalue(), "a.npy"))
    for key in ("a", "b", None):
        with pytest.raises(InputError, match=r"it holds a\.npy twice"):
            read_sequences(str(tmp_path / "x.npz"), key=key)
    (tmp_path / "w.pt").write_bytes(repeated(saved({"w": torch.ones(3)}), "archive/data/0"))
    with pytest.raises(InputError, match="it holds archive/data/0 twice"):
        read_checkpoint(tmp_path / "w.pt")


# What the fuzzer found


@pytest.mark.parametrize("cell", ["9" * 400, "1e999", "-1e308"])
def test_a_number_beyond_float64_or_next_to_its_end_warns_of_nothing(cell: str, tmp_path: Path) -> None:
    rows = [f"{i},{i * i % 5}.5" for i in range(6)]
    (tmp_path / "x.csv").write_text("\n".join(["day,a", *rows, f"{cell},1.5", "1e308,1.5", ""]))
    try:
        assert read_sequences(str(tmp_path / "x.csv")).values.shape[1] == 8
        assert "308" in cell
    except InputError as error:
        assert "not finite" in str(error)
        assert "308" not in cell


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no wider numbers here")
def test_a_wider_number_beyond_float64_is_refused_as_infinite(tmp_path: Path) -> None:
    values = np.ones((4, 2), np.longdouble)
    values[1, 0] = np.longdouble("9e4000")
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match="1 value that is not finite; the first is inf in sequence 0, step 1"):
        read_sequences(str(tmp_path / "x.npy"))


def test_an_archive_that_says_it_spans_disks_is_no_traceback(tmp_path: Path) -> None:
    data = bytearray(saved({"w": torch.ones(3)}))
    # The number of the disk, in the locator before the last record.
    data[data.rindex(b"PK\x06\x07") + 16] = 2
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(InputError, match="not a readable .pt file: zipfiles that span multiple disks"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")],
)
def test_memory_that_runs_out_after_all_is_one_message(
    error: Exception, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("rnnctl.gradients.gradnorm.gradnorm", computed)
    ran = run("gradnorm")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: there was not enough memory. Try")
    assert ran.err.count("\n") == 1


def test_an_array_under_one_name_with_and_without_a_suffix_is_there_twice(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.npz", "w") as archive:
        for name, value in (("a", 1.0), ("a.npy", 2.0)):
            part = io.BytesIO()
            np.save(part, np.full((5, 2), value))
            archive.writestr(name, part.getvalue())
    ran = run("cell --input two.npz")
    assert ran.code == 2
    assert "it holds a twice" in ran.err
