"""The names of tensors in a file against those that a model has: prefixes, and what wrappers of modules put in."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")
# Whether what the file has under a first name may be what the model has under a second one, by all but the names.
Alike = Callable[[str, str], bool]

# The names under which wrappers keep the module that they wrap: DataParallel and DistributedDataParallel,
# torch.compile, LightningModules by custom, FSDP, activation checkpointing.
WRAPPERS = ("module", "_orig_mod", "model", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# weight_hh_l0_reverse of nn.LSTM and its like; weight_hh of nn.LSTMCell and its like. A file may hold any name: int()
# refuses a number of thousands of digits.
TORCH_PARAMETER = re.compile(r"(.*\.)?(weight|bias)_(ih|hh|hr)(?:_l(\d{1,6})(_reverse)?)?")
OWN_PARAMETER = re.compile(r"(.*\.)?(input_to_hidden|hidden_to_hidden)\.(weight|bias)")
# Of more names than this, a message tells the first ones and how many there are.
MOST_TOLD = 10


@dataclass(frozen=True)
class Matched:
    """The names of a file as a model has them.

    Attributes:
        names: name in the file -> name in the model, or one that the model does not have; no two are alike.
        said: what was taken off, such as "without the prefix 'module.'"; "" where the names are as they were.
        rivals: the prefixes, where as many names, and tensors that are alike, are the model's without one as without
            another; else none.
    """

    names: Mapping[str, str]
    said: str
    rivals: tuple[str, ...]

    def notes(self, source: str) -> tuple[str, ...]:
        """What to tell the user of what was taken off; nothing where the names are as they were."""
        return (f"{source}: taken {self.said}",) if self.said else ()


def _any(name: str, own: str) -> bool:
    return True


def matched(names: Collection[str], known: Collection[str], alike: Alike = _any) -> Matched:
    """The names of a file as a model has them, without a common prefix and what wrappers put in.

    Wrappers are looked for within the names only where more of them are known then: a model that has a module called
    "model" itself keeps it.

    Args:
        names: of the file.
        known: of the model.
        alike: decides between prefixes without which as many names are known.
    """
    as_they_stand = _matched(names, {name: name for name in names}, {name: name for name in known}, alike)
    unwrapped = _matched(names, _unwrapped(names), _unwrapped(known), alike)
    wanted = set(known)

    def fitting(found: Matched) -> tuple[int, int]:
        pairs = [(name, own) for name, own in found.names.items() if own in wanted]
        return len(pairs), sum(alike(*pair) for pair in pairs)

    # The first of two that fit as well.
    return max(as_they_stand, unwrapped, key=fitting)


def without_common_prefix(
    tensors: Mapping[str, Value], known: Collection[str], alike: Alike = _any
) -> tuple[str, dict[str, Value]]:
    """The prefix ("module.", "_orig_mod.", "model.") without which the most names are known.

    Args:
        tensors: name -> tensor of any shape; they are not looked at.
        known: the names that are wanted, such as the keys of a model's own state dict.
        alike: decides between prefixes without which as many names are known.
    Returns:
        The prefix, "" where none helps, and the tensors without it; a name that does not begin with it stays.
    """
    ranks = _ranks(tensors, known, alike)
    best_first = sorted(ranks, key=lambda prefix: (ranks[prefix], len(prefix)))
    # Without some prefixes, two tensors would have one name.
    safe = (p for p in best_first if len({name.removeprefix(p) for name in tensors}) == len(tensors))
    prefix = next(safe, "")
    return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def first_of(names: Sequence[str], between: str = ", ") -> str:
    """The names in one text, or the first ones and how many more there are."""
    more = len(names) - MOST_TOLD
    return between.join([*names[:MOST_TOLD], *([f"and {more:,} more"] if more > 0 else [])])


def _matched(names: Collection[str], short: Mapping[str, str], known: Mapping[str, str], alike: Alike) -> Matched:
    """Names matched by short ones: short -> name, of the file and of the model."""

    def short_alike(name: str, own: str) -> bool:
        return alike(short[name], known[own])

    prefix, rest = without_common_prefix(short, known, short_alike)
    own = {name: known.get(found, name.removeprefix(prefix)) for found, name in rest.items()}
    found = {name: own.get(name, name) for name in names}
    if len(set(found.values())) < len(found):
        return Matched({name: name for name in names}, "", ())
    ranks = _ranks(short, known, short_alike)
    # The names as they stand have none, and those of a wrapper none but those of another one.
    equal = [other for other in ranks if ranks[other] == ranks[prefix]] if prefix else []
    rivals = tuple(equal) if len(equal) > 1 else ()
    wanted = set(known.values())
    return Matched(found, _said(prefix, [(name, own) for name, own in found.items() if own in wanted]), rivals)


def _unwrapped(names: Collection[str]) -> dict[str, str]:
    """Name without those of wrappers -> name; without the names that would become one and the same."""
    short = {name: _own_parts(name) for name in names}
    counts = Counter(short.values())
    return {own: name for name, own in short.items() if counts[own] == 1}


def _own_parts(name: str) -> str:
    *modules, last = name.split(".")
    return ".".join([*(part for part in modules if part not in WRAPPERS), last])


def _ranks(names: Collection[str], known: Collection[str], alike: Alike) -> dict[str, tuple[int, int, bool]]:
    """Prefix -> how many names are known without it, and how many of them alike; the lower, the more."""
    pairs = [(prefix, name) for name in names for prefix in _prefixes(name, known)]
    count = Counter(prefix for prefix, _ in pairs)
    fitting = Counter(prefix for prefix, name in pairs if alike(name, name.removeprefix(prefix)))
    return {prefix: (-count[prefix], -fitting[prefix], not _is_of_wrappers(prefix)) for prefix in count}


def _prefixes(name: str, known: Collection[str]) -> list[str]:
    """What stands in front of a known name at the end of this one."""
    starts = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
    return [name[:start] for start in starts if name[start:] in known]


def _is_of_wrappers(prefix: str) -> bool:
    return all(part in WRAPPERS for part in prefix.split(".")[:-1])


def _said(prefix: str, pairs: Sequence[tuple[str, str]]) -> str:
    """What is different between names of the file and the model's."""
    within = [(name, own) for name, own in pairs if name.removeprefix(prefix) != own]
    if not within:
        return f"without the prefix {prefix!r}" if prefix else ""
    changes = {"without": _parts_beyond(within), "with": _parts_beyond([(own, name) for name, own in within])}
    told = [f"{word} {', '.join(map(repr, parts))}" for word, parts in changes.items() if parts]
    return f"{' and '.join(told)} in the names, such as {within[0][1]} for {within[0][0]}"


def _parts_beyond(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The parts of first names that the second ones do not have, each once."""
    left = (Counter(name.split(".")) - Counter(other.split(".")) for name, other in pairs)
    return list(dict.fromkeys(part for parts in left for part in parts))
