"""What every inspection returns, named scalars and one record per time step (or tensor, ...); and it as strict JSON."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

Value = float | int | str | bool | None
Record = Mapping[str, Any]
# What a scalar is: float of any number, bool, str of any text, or the words that a text may be.
Kind = type | tuple[str, ...]
T = TypeVar("T")


def numbers(*names: str) -> dict[str, Kind]:
    """Scalars, or patterns of them, that are numbers."""
    return dict.fromkeys(names, float)


@dataclass(frozen=True)
class Answers:
    """What one kind of result can be asked: ``kinds`` and ``words`` as of ``Result``."""

    kinds: Mapping[str, Kind]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Result:
    """What a question of rnnctl is answered with; any view can render it. Frozen dataclasses inherit it.

    Attributes:
        schema: the kind of result ("gradnorm"), a stable name.
        scalars: name -> number, text or None where there is no value.
        rows: one flat record per time step, tensor, claim, ...; all with the same keys.
        more: further records, by name.
        settled: what the run itself settled of its configuration, by name.
        conditions: what can be asked of it by a word ("vanishing"), and whether it is so; None where nothing tells.
        why: name of a scalar that is None, or of a condition -> the reason.
        kinds: name of a scalar, or a pattern of names -> what it is where it has a value.
        words: the names of the conditions.
        notes: what is to be told beside it, a sentence each.
        remarks: what is to be told after it of this one run, such as what took long, a sentence each.
    """

    notes: tuple[str, ...] = field(default=(), kw_only=True)
    kinds: ClassVar[Mapping[str, Kind]] = {}
    words: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def answers(cls) -> Answers:
        """What can be asked of any result of this kind."""
        return Answers(cls.kinds, cls.words)

    if TYPE_CHECKING:
        # For the type checker alone: what stands in a base is the default of a dataclass's field of that name.
        @property
        def schema(self) -> str: ...

        @property
        def scalars(self) -> Record: ...

        @property
        def rows(self) -> Sequence[Record]: ...

    @property
    def more(self) -> Mapping[str, Sequence[Record]]:
        """Further records beside the rows, by name; none of most results."""
        return {}

    @property
    def settled(self) -> Record:
        """What the run itself settled of its configuration, by name; nothing of most results."""
        return {}

    @property
    def remarks(self) -> Sequence[str]:
        """What is to be told after it of this one run, a sentence each; nothing of most results."""
        return ()

    @property
    def conditions(self) -> Mapping[str, bool | None]:
        """What --fail-on knows by a bare name; nothing of most results."""
        return {}

    @property
    def why(self) -> Mapping[str, str]:
        """The reason of every scalar that is None, and of every condition that nothing tells."""
        return {}

    @property
    def judged_cases(self) -> Sequence[tuple[str, Record]]:
        """What --fail-on compares: in words where, and the scalars there. Of most results it is one."""
        return [("", self.scalars)]

    def require_agreement(self) -> None:
        """Raise VerificationError if autograd was asked and disagrees; most results have not asked it."""


class Later(Generic[T]):
    """A value that is made when it is first asked for, by a call, and then kept in place of what it is made from."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._made: list[T] = []

    @classmethod
    def made(cls, value: T) -> "Later[T]":
        """One that is there already."""
        return cls(lambda: value)

    def __call__(self) -> T:
        if self._make is not None:
            self._made, self._make = [self._make()], None
        return self._made[0]

    def __reduce__(self) -> Any:
        # Copies, and what goes to another process, have the value alone.
        return Later.made, (self(),)


def strict(value: Any) -> Any:
    """The value with null for every non-finite number, named in a "nonfinite" note beside it."""
    if isinstance(value, Mapping):
        bad = {key: str(v) for key, v in value.items() if _is_nonfinite(v)}
        note = {"nonfinite": bad} if bad else {}
        return {**{key: None if key in bad else strict(v) for key, v in value.items()}, **note}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return None if _is_nonfinite(value) else value


def strict_line(record: Mapping[str, Any]) -> str:
    """One strict JSON object as a line of JSONL."""
    return json.dumps(strict(record), allow_nan=False) + "\n"


def _is_nonfinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
