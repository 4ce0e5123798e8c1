"""The title of a picture: in as many lines as it takes, each within the width."""

from textwrap import wrap
from typing import Any

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

FONT_SIZE = 8
POINTS_PER_INCH = 72
# Of a title, so that a line of it fits.
LETTERS_PER_INCH = 15
# More would be a page of text with a picture below.
MOST_LINES = 12
# What the picture itself has room for.
FREE_LINES = 3


def set_title(figure: Figure, title: str) -> None:
    """The title above what the figure has there already; the figure grows by what it takes.

    Args:
        title: any text: what looks like mathematics stays as it is, and what no font shows is marked as such.
    """
    letters = "".join(
        letter if letter.isprintable() or letter.isspace() else "\N{REPLACEMENT CHARACTER}" for letter in title
    )
    lines = [*_lines(letters, figure.get_figwidth()), *filter(None, [figure.get_suptitle()])]
    if not lines:
        return
    more = max(0, len(lines) - FREE_LINES) * 1.3 * FONT_SIZE / POINTS_PER_INCH
    figure.set_figheight(figure.get_figheight() + more)
    figure.suptitle("\n".join(lines), fontsize=FONT_SIZE, parse_math=False)


def letters_without_glyph(title: str) -> str:
    """Those letters of a title, each once, that pictures draw as a box: matplotlib brings no font for them."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(dict.fromkeys(letter for letter in title if letter.isprintable() and ord(letter) not in known))


def _lines(title: str, inches: float) -> list[str]:
    """The title wrapped so that its widest line fits: capitals and other scripts are wider than most letters."""
    letters = int(LETTERS_PER_INCH * inches)
    available = 0.97 * inches * POINTS_PER_INCH
    while True:
        lines = wrap(title, letters, max_lines=MOST_LINES, placeholder=" ...")
        widest = max(map(_points, lines), default=0)
        if widest <= available or letters < LETTERS_PER_INCH:
            return lines
        letters = int(letters * max(0.5, min(0.98, available / widest)))


def _points(line: str) -> float:
    """Its width."""
    drawn: Any = RendererAgg(1, 1, POINTS_PER_INCH)  # type: ignore[no-untyped-call]
    return float(drawn.get_text_width_height_descent(line, FontProperties(size=FONT_SIZE), ismath=False)[0])
