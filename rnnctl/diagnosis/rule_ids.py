"""The names of all findings, for what is asked about them before torch is there."""

from collections.abc import Collection, Sequence

from rnnctl.errors import InputError, did_you_mean

IDS = (
    "time-axis",
    "input-scale",
    "nonfinite",
    "vanishing",
    "exploding",
    "chaotic",
    "stuck-gate",
    "dead-units",
    "state-cut",
    "window",
    "padding",
    "reverse-last",
    "loss-output",
    "no-gradient",
    "step-size",
    "echo",
)


def chosen_ids(only: str | Sequence[str] = (), skip: str | Sequence[str] = ()) -> tuple[str, ...]:
    """The findings that are looked for, in their order.

    Args:
        only: this or these alone, or all where there is none.
        skip: not this, or these.
    Raises:
        InputError: a name that no finding has, with the nearest; or nothing is left.
    """
    # Of one name its letters would be taken for names.
    only, skip = ((each,) if isinstance(each, str) else each for each in (only, skip))
    for flag, names in (("only_finding", only), ("skip_finding", skip)):
        if not isinstance(names, Collection):
            raise InputError(f"{flag} must be the name of a finding, or several; got {names!r}")
        for name in names:
            if name not in IDS:
                raise InputError(
                    f"{flag}: there is no finding {name!r}; there are {', '.join(IDS)}.{did_you_mean(name, IDS)}"
                )
    chosen = tuple(each for each in IDS if (not only or each in only) and each not in skip)
    if not chosen:
        raise InputError("only_finding and skip_finding leave no finding to look for")
    return chosen
