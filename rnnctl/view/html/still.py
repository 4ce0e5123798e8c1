"""A matrix as a picture that stands still, with its axes and what its colours say.

It is for paper, for a notebook and for a page without its script. Its style is within it: a notebook has none of a
page's.
"""

from collections.abc import Iterator

from rnnctl.view.html.markup import Markup, tag
from rnnctl.view.html.matrix import BAD, Matrix, Picture

GRID = "display:grid;grid-template-columns:auto minmax(0,1fr);gap:2px 6px;font-size:13px"
UP, ACROSS = "writing-mode:vertical-rl;transform:rotate(180deg)", "display:flex;justify-content:space-between;gap:8px"
# Behind cells without a colour, on a light page as on a dark one.
GREY = "rgba(128,128,128,.2)"
SWATCH = "display:inline-block;width:12px;height:12px;border:1px solid #888;print-color-adjust:exact;background:"


def still(matrix: Matrix, image: Markup, width: int) -> Markup:
    """The image within its axes: their names, and the numbers at their ends.

    Args:
        width: of all of it at most, in pixels.
    """
    rows, columns = matrix.values.shape
    first, last = (f"{matrix.rows[0]} {matrix.labels[i]}" for i in (0, rows - 1))
    # Read from below to above.
    up = tag("div", *_ends(last, matrix.rows[1], first), style=f"{ACROSS};{UP}", class_="axis")
    across = _ends(f"{matrix.columns[0]} 0", matrix.columns[1], f"{matrix.columns[0]} {columns - 1}")
    along = tag("div", *across, style=f"{ACROSS};grid-column:2", class_="axis")
    return tag("div", up, image, along, style=f"{GRID};max-width:{width}px", class_="still")


def _ends(first: str, name: str, last: str) -> Iterator[Markup]:
    yield from (tag("span", text) for text in ((first, name, last) if first != last else (first, name)))


def colours(matrix: Matrix, picture: Picture) -> tuple[Markup, ...]:
    """What the colours say that are none of the scale, of those that there are; nothing where there is none."""
    zero, beyond = picture.blank
    grey = " or ".join([*(["0"] if zero else []), *([matrix.beyond] if beyond else [])])
    said = [(GREY, f"grey: {grey}")] if grey else []
    said += [(f"#{BAD}", "pink: not finite")] if picture.bad else []
    items = (tag("span", tag("span", style=SWATCH + color, aria_hidden="true"), f" {words}") for color, words in said)
    return (
        (tag("p", *items, class_="colours", style=f"{ACROSS};justify-content:flex-start;margin:4px 0"),) if said else ()
    )
