"""How the contents of a checkpoint are shown."""

from collections.abc import Mapping

from rnnctl.view.layouts.layout import Column, Layout, Record, Table
from rnnctl.view.layouts.matrix import error_text, radius_notes
from rnnctl.view.words import notes_beside


def _notes(scalars: Record) -> Mapping[str, str]:
    said = notes_beside("weights")
    return {**said, **radius_notes(scalars, "largest_spectral_radius", said["largest_spectral_radius"])}


WEIGHTS = Layout(
    (
        Table(
            (
                Column("name", "name", right=False),
                Column("shape", "shape", right=False, whole=True),
                Column("dtype", "dtype", right=False, whole=True),
                Column("elements", "elements"),
                Column("nonfinite", "nonfinite"),
                Column("recurrent", "W_hh", right=False, whole=True),
                Column("cell", "cell", right=False),
                # Their names tell, too.
                Column("layer", "layer", spare=True),
                Column("direction", "direction", right=False, spare=True),
            ),
            title="tensors",
        ),
    ),
    _notes,
    more={
        "recurrent": (
            Table(
                (
                    Column("name", "name", right=False),
                    Column("gate", "gate", right=False, whole=True),
                    Column("shape", "shape", right=False, whole=True),
                    Column("spectral_radius", "spectral radius"),
                    Column("spectral_radius_error", "error", text=error_text),
                    Column("spectral_norm", "spectral norm"),
                ),
                title="every W_hh, gate by gate",
                optional=True,
                keys=2,
            ),
        ),
        "unknown": (
            Table(
                (
                    Column("name", "name", right=False),
                    Column("recurrent", "W_hh", right=False, whole=True),
                ),
                title="held in parts that do not tell them: the notes say which",
                optional=True,
            ),
        ),
        "other": (
            Table(
                (
                    Column("name", "name", right=False),
                    Column("holds", "holds", right=False),
                ),
                title="beside the tensors",
                optional=True,
            ),
        ),
    },
)
