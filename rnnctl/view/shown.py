"""What a notebook asks of a result, and what leads on from it: the same for every result, written once.

Results are declared in rooms above this one, and ``results`` below it knows no view: so each public kind of result
names ``Shown`` among its bases. Nothing of it is loaded before it is asked for.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from rnnctl.errors import InputError
from rnnctl.results import Result


class Shown:
    """A base of results, and of what can be shown as one."""

    def _as_result(self) -> Result:
        """What is shown."""
        return cast(Result, self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, a picture, the scalars."""
        from rnnctl.view.html.notebook import piece

        return piece(self._as_result())

    def to_pandas(self) -> Any:
        """The rows as a DataFrame, a column for each of their names.

        Returns:
            A ``pandas.DataFrame``, shape (rows, names).
        Raises:
            InputError: pandas is not installed.
        """
        # First, for a trace may have none yet.
        rows = list(self._as_result().rows)
        _require("pandas", "to_pandas()", "pandas")
        return import_module("pandas").DataFrame(rows)

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """The picture that --plot draws.

        Args:
            ax: axes of matplotlib's to draw the first panel of it into; a figure of its own if left out.
        Returns:
            The figure and the axes of its first panel; ``figure.axes`` has all of them.
        Raises:
            InputError: matplotlib is not installed; there is no picture of this kind of result; ``ax`` are no axes.
        """
        _require("matplotlib", "plot()", "rnnctl[plot]")
        from rnnctl.view.figures import drawn

        return drawn(self._as_result(), ax)


def _require(package: str, what: str, requirement: str) -> None:
    if find_spec(package) is None:
        raise InputError(f"{what} needs {package}. Install it: {sys.executable} -m pip install '{requirement}'")
