"""Does it learn? Every set-up is trained for a while on new data at every step, and judged on data not seen.

    python tests/faults/learning.py SEEDS > tests/faults/learned.csv

A row for each: the loss before and after, medians over the seeds. A fault that did not show here would be none.
"""

import csv
import sys
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from rnnctl.models.objective import Objective, called

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.setups import SetUp, seeded  # noqa: E402

STEPS, RATE, UNSEEN = 400, 3e-3, 10


def loss(setup: SetUp, judge: SetUp, model: torch.nn.Module, draw: int) -> Tensor:
    """The loss on a set-up's inputs as another one defines it: a fault of the loss is not judged by that loss."""
    given, told = setup.data(draw), {**judge.data(draw), **judge.keywords}
    first = setup.keywords.get("time_first")
    names = ("target", "loss", "loss_at", "loss_fn", "lengths")
    objective = Objective(given["x"], **{name: told[name] for name in names if name in told}, time_first=first)
    output = called(model, given["x"], given.get("lengths"), first)
    # The loss that is seen while training takes them as they are; of probabilities a judge knows better.
    return objective.value(_logits(output) if judge is not setup and told.get("loss") == "cross-entropy" else output)


def _logits(output: Tensor) -> Tensor:
    """The logarithms of an output that is probabilities; any other as it is."""
    sums = output.detach().sum(-1)
    return output.log() if torch.allclose(sums, torch.ones_like(sums)) else output


def learned(setup: SetUp, seed: int) -> tuple[float, float]:
    """The loss before and after, on data not seen, by the healthy twin's loss where there is one."""
    model = seeded(setup.trained or setup.model, seed)
    judge = setup.twin or setup
    takes = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(takes, lr=RATE)
    before = _unseen(setup, judge, model)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(setup, setup, model, 1000 * (seed + 1) + step).backward()
        optimizer.step()
    return before, _unseen(setup, judge, model)


def _unseen(setup: SetUp, judge: SetUp, model: torch.nn.Module) -> float:
    return sum(float(loss(setup, judge, model, 10**6 + draw).detach()) for draw in range(UNSEEN)) / UNSEEN


def row(setup: SetUp, seeds: int) -> tuple[str, str, str, int]:
    """Name, loss before and after, as medians over the seeds, and how many these were."""
    before, after = map(median, zip(*(learned(setup, seed) for seed in range(seeds)), strict=True))
    return setup.name, f"{before:.3g}", f"{after:.3g}", seeds


def main(seeds: int) -> None:
    from faults.faulty import FAULTY
    from faults.healthy import HEALTHY

    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("name", "before", "after", "seeds"))
    for setup in (*HEALTHY, *FAULTY):
        out.writerow(row(setup, seeds))
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]))
