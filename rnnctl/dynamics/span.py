"""Over which steps exponents are measured, and how many of them; as numbers alone, without torch."""

from rnnctl.errors import InputError

# Steps that a free-running network is measured over unless told.
AUTONOMOUS_STEPS = 1000


def free_steps(steps: int | None, warmup: int | None) -> int:
    """Steps of a network that runs freely."""
    steps = AUTONOMOUS_STEPS if steps is None else steps
    return max(1, steps + (steps // 10 if warmup is None else warmup))


def measured_span(
    seq_len: int, steps: int | None, warmup: int | None, *, autonomous: bool, first_step: int = 0, can_run_freely: bool
) -> tuple[int, int]:
    """Warm-up and counted steps.

    Args:
        seq_len: steps that there are.
        first_step: the one that they begin with.
        can_run_freely: whether autonomous=True would be a way out.
    Raises:
        InputError: the sequence is too short for them.
    """
    if autonomous and steps is None:
        steps = AUTONOMOUS_STEPS
    if warmup is None:
        warmup = (steps if autonomous and steps is not None else seq_len) // 10
        # A tenth of a sequence that --steps wants whole is not there to spend.
        warmup = warmup if steps is None else max(0, min(warmup, seq_len - steps))
    steps = seq_len - warmup if steps is None else steps
    if warmup < 0 or steps < 1 or warmup + steps > seq_len:
        start = f" from step {first_step} on" if first_step else ""
        free = ", or --autonomous" if can_run_freely else ""
        many = f"and {steps} measured steps do not fit into it" if steps >= 0 else "leaves none to measure"
        raise InputError(
            f"the sequence has {seq_len} steps{start}; warmup {warmup} {many}. Try a longer --seq-len{free}"
        )
    return warmup, steps


def exponent_count(count: int | None, state: int, state_name: str) -> int:
    """How many exponents are measured: all that a state of so many numbers has where nothing is said.

    Args:
        state_name: "h_t", "h_t and c_t", or what code of the user's own carries.
    Raises:
        InputError: count is not from 1 to ``state``.
    """
    if count is None:
        return state
    if not 1 <= count <= state:
        size = {"h_t": "hidden size", "h_t and c_t": "size of h and c together"}.get(state_name, "size of the state")
        raise InputError(f"count must be from 1 to the {size} {state}; got {count}")
    return count
