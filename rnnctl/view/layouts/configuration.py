"""How --show-config shows what a command is set to."""

from rnnctl.view.layouts.layout import Column, Layout, Table

CONFIGURATION = Layout(
    (
        Table(
            (
                Column("option", "option", right=False, whole=True),
                Column("value", "value", right=False, text=lambda row: _as_typed(row["value"])),
                Column("source", "from", right=False),
                Column("where", "where", right=False),
            )
        ),
    )
)


def _as_typed(value: object) -> str:
    """As one would type it; switches by yes and no."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(map(str, value)) or "-") if isinstance(value, list) else str(value)
