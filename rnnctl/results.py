"""What every inspection returns: named scalars, and one record per time step (or tensor, ...)."""

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
