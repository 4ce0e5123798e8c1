"""JSON that every parser can read: no number in it is infinite or not a number."""

import json
import math
from collections.abc import Mapping
from typing import Any


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
