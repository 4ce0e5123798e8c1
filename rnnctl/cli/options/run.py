"""How it is computed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from rnnctl.cli.options.flags import option, whole

# What torch's generators take, and more threads than any machine has a use for.
MAX_SEED = 2**64 - 1
MAX_THREADS = 1024


@dataclass(frozen=True)
class RunOptions:
    """How it is computed."""

    panel: ClassVar[str] = "Run"
    seed: Annotated[int, whole("--seed", "Seed of weights, random input and h_init.", 0, MAX_SEED)] = 0
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"] | None,
        option("--dtype", help="Dtype of weights and data.", show_default="float32; check: float64"),
    ] = None
    device: Annotated[Literal["cpu", "cuda", "mps", "auto"], option("--device", help="Where it runs.")] = "cpu"
    threads: Annotated[
        int | None, whole("--threads", "CPU threads of torch.", 1, MAX_THREADS, show_default="torch's choice")
    ] = None


@dataclass(frozen=True)
class SeedsOptions:
    """Several seeds in place of one."""

    panel: ClassVar[str] = "Run"
    seeds: Annotated[
        int | None,
        whole(
            "--seeds",
            "How many seeds, from 0: of each grid point of a sweep, or of each short training.",
            1,
            show_default="5; sweep: one, by --seed",
        ),
    ] = None
