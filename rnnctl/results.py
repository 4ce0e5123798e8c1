"""What every inspection returns, named scalars and one record per time step (or tensor, ...); and it as strict JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

Value = float | int | str | bool | None
Record = Mapping[str, Any]


class Result(Protocol):
    """A frozen dataclass that any view can render.

    Attributes:
        schema: the kind of result ("gradnorm"), a stable name.
        scalars: name -> number, text or None where there is no value.
        rows: one flat record per time step, tensor, claim, ...; all with the same keys.
        more: where a result has one, further records by name.
    """

    schema: ClassVar[str]

    @property
    def scalars(self) -> Record: ...

    @property
    def rows(self) -> Sequence[Record]: ...


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
