"""What only a fresh interpreter can show: imports, pipes, signals, encodings."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "matplotlib")
# The commands are made once; each line then runs in a copy of that interpreter, so none has the modules of another.
MODULES_AFTER = """
import json, os, sys, typer, typer.rich_utils
import rnnctl.cli.app
from rnnctl.__main__ import main
rnnctl.cli.app.app = typer.main.get_command(rnnctl.cli.app.app)
for line in sys.stdin:
    if os.fork() == 0:
        answer = None
        answers, sys.stdout = sys.stdout, open(os.devnull, "w")
        try:
            answer = main(json.loads(line)), sorted(sys.modules)
        finally:
            print(json.dumps(answer), file=answers, flush=True)
            os._exit(0)
    os.wait()
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter without settings from outside."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=clean(environment), timeout=120
    )


def clean(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RNNCTL_", "PYTHONIO"))}
    return {**kept, **more}


def test_importing_the_package_does_not_import_torch() -> None:
    found = python("-c", f"import rnnctl, sys; print([n for n in {HEAVY} if n in sys.modules])")
    assert (found.returncode, found.stdout) == (0, "[]\n")


@pytest.fixture(scope="module")
def modules_after() -> Iterator[Callable[[str], tuple[int, set[str]]]]:
    """Exit code and modules after one line in an interpreter that has imported the commands alone."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", MODULES_AFTER], **pipes, text=True, env=clean({})) as process:

        def after(line: str) -> tuple[int, set[str]]:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(line.split()), file=process.stdin, flush=True)
            code, modules = json.loads(process.stdout.readline())
            return code, set(modules)

        yield after


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no copies of an interpreter here")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--version", 0),
        ("--help", 0),
        ("", 0),
        ("gradnorm --help", 0),
        ("bench --help", 0),
        ("gradnorm --hiden-size 3", 2),
        ("gradnorm --hidden-size 0", 2),
        ("nonsense", 2),
        ("explain chi", 0),
        ("weights --help", 0),
        ("weights", 2),
        ("weights run.pt --json --format csv", 2),
        ("gradnorm --config missing.toml", 2),
        ("gradnorm --json --format csv", 2),
        ("gradnorm --fail-on 1<2", 2),
        ("flow --help", 0),
        ("lyapunov --help", 0),
        ("gradnorm --model train:build --fail-on 1<2", 2),
        ("gradnorm --model train:build --json --format csv", 2),
        ("gradnorm --model train:build --plot picture.jpg", 2),
        ("gradnorm --model train:build --report page.txt", 2),
        ("forward --cell transformer", 2),
        ("flow --cell lstm --num-layers 0", 2),
        ("truncation --cell lstm --windows 1,b", 2),
        ("gradnorm --from run.jsonl --json --format csv", 2),
        ("bench --probe --flow", 2),
        ("bench --probe --weights w.pt", 2),
        ("bench --tolerance 0.2", 2),
        ("bench --against missing.json", 2),
        ("bench --save missing/new.json", 2),
        ("gradnorm --model train:build --cell gru", 2),
        ("gradnorm --model train:build --hidden-size 3", 2),
        ("flow --module encoder", 2),
        ("spectrum --cell gru --h-init normal", 2),
        ("cell --target next", 2),
        ("unroll --as dot --json", 2),
        ("forward --save-weights w.pt", 2),
        ("lyapunov --columns a", 2),
        ("gradnorm --from run.jsonl --cell gru", 2),
    ],
)
def test_help_version_and_usage_errors_do_not_import_torch(
    line: str, code: int, modules_after: Callable[[str], tuple[int, set[str]]]
) -> None:
    said, modules = modules_after(line)
    assert said == code
    assert not set(HEAVY) & modules


def test_the_version_is_said_without_importing_typer() -> None:
    script = "import sys; from rnnctl.__main__ import main; print(main(['--version']), 'typer' in sys.modules)"
    found = python("-c", script)
    assert found.stdout.splitlines()[1:] == ["0 False"]


def test_completion_does_not_import_torch() -> None:
    script = f"""
import sys
try:
    from rnnctl.__main__ import main
    main([])
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    asked = {"_RNNCTL_COMPLETE": "complete_bash", "COMP_WORDS": "rnnctl gradnorm --hid", "COMP_CWORD": "2"}
    found = python("-c", script, **asked)
    assert found.stdout.strip() == "--hidden-size"
    assert found.stderr.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_module_runs_like_the_command() -> None:
    found = python("-m", "rnnctl", "cell", "--format", "csv")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("kind,symbol,")


def test_module_passes_its_exit_code_on() -> None:
    found = python("-m", "rnnctl", "gradnorm", "--nonsense")
    assert (found.returncode, found.stdout) == (2, "")
    assert "Traceback" not in found.stderr


LONG = pytest.param("unroll --seq-len 4000 --all", marks=pytest.mark.slow)


@pytest.mark.parametrize("line", ["--help", "gradnorm --help", LONG])
def test_pipe_closed_after_one_line_ends_silently(line: str) -> None:
    command = [sys.executable, "-m", "rnnctl", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean({})) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(120) == 0
    assert said == b""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
@pytest.mark.parametrize("line", ["--version", "--help"])
def test_full_disk_is_one_message_to_the_very_end(line: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rnnctl", line]
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=clean({}), timeout=120)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "No space left on device" in found.stderr


@pytest.mark.slow
def test_ascii_output_is_ascii_and_complete() -> None:
    found = python("-m", "rnnctl", "gradnorm", PYTHONIOENCODING="ascii")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.isascii()
    assert "verdict" in found.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_interrupt_is_exit_130_and_silent(tmp_path: Path) -> None:
    # Reading the configuration from a pipe keeps the command waiting where the test wants it.
    pipe = tmp_path / "slow.toml"
    os.mkfifo(pipe)
    # A shell may have started the tests with interrupts ignored.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rnnctl.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "gradnorm", "--config", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean({})) as process:
        writer = opened_once_read(pipe, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        os.close(writer)
    assert process.returncode == 130
    assert (out, err.strip()) == (b"", b"")


def opened_once_read(pipe: Path, process: subprocess.Popen[bytes]) -> int:
    """The writing end, as soon as the process has opened the other."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.01)
    raise AssertionError(f"ended early with {process.returncode}")
