"""Peak memory of one method, measured in a process of its own.

Run as ``python -m rnnctl.benchmark.peak METHOD T B H I O NONLINEARITY LOSS_AT DTYPE``: prints bytes
above what the process held with torch loaded, the model built and the batch drawn.
"""

import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from rnnctl.benchmark.methods import METHODS, Workload
from rnnctl.cells import FullRNN
from rnnctl.errors import RnnctlError, plain


def peak_bytes(method: str, work: Workload) -> int | None:
    """Peak memory of one run of the method above its start; None off the CPU."""
    if work.x.device.type != "cpu":
        return None
    settings = (work.model.rnn_cell.nonlinearity, work.loss_at, plain(work.x.dtype))
    command = [sys.executable, "-m", __name__, method, *map(str, work.sizes), *settings]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        why = (finished.stderr.strip().splitlines() or ["killed, perhaps for its memory"])[-1]
        raise RnnctlError(f"{method} did not end well in a process of its own ({why}); try --no-memory")
    return int(finished.stdout)


def _main(method: str, sizes: list[int], nonlinearity: str, loss_at: str, dtype: str) -> None:
    seq_len, batch, hidden, inputs, outputs = sizes
    model = FullRNN(inputs, hidden, outputs, nonlinearity=nonlinearity, dtype=getattr(torch, dtype))
    x = torch.randn(batch, seq_len, inputs, dtype=getattr(torch, dtype))
    run = METHODS[method](Workload(model, x, model.initial_state(x), loss_at))
    # torch's own threads and kernels load with the first product.
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    before = _reset_peak()
    run()
    print(_peak() - before)


def _reset_peak() -> int:
    """Forget the peak so far where the system can, and return what is held now (or the peak)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    _main(name, [int(size) for size in rest[:5]], *rest[5:])
