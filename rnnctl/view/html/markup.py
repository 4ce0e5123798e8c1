"""HTML and SVG from tags: text becomes markup by one function, ``escaped``, and nothing gets around it."""

import html
import json
from collections.abc import Iterable
from typing import Any

from rnnctl.results import strict
from rnnctl.view.numbers import printable_lines

# Elements that have no end.
VOID = ("meta", "img", "br")
# What would end a script element, or begin a comment in one; in JSON they may be written as their numbers.
IN_SCRIPT = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


class Markup(str):
    """What is markup already: made by the functions here alone."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Any text as it is to be read, within an element or an attribute: markup already stays as it is."""
    if isinstance(text, Markup):
        return text
    # Lines stay lines; other control characters, and what UTF-8 cannot hold, are written out.
    return Markup(html.escape(printable_lines(text), quote=True))


def tag(name: str, /, *inside: str, **attributes: str | float | None) -> Markup:
    """An element.

    Args:
        inside: texts, which are escaped, and markup, which is not.
        attributes: name -> value, ``class_`` and ``aria_label`` for class and aria-label; None leaves it out.
    """
    told = (f' {_name(key)}="{escaped(str(value))}"' for key, value in attributes.items() if value is not None)
    opened = f"<{name}{''.join(told)}>"
    return Markup(opened if name in VOID else f"{opened}{joined(inside)}</{name}>")


def _name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")


def joined(parts: Iterable[str]) -> Markup:
    """One behind the other, each escaped unless it is markup."""
    return Markup("".join(map(escaped, parts)))


def own(text: str) -> Markup:
    """What stands in a file of ours, style or script, as it is."""
    return Markup(text)


def json_in_script(value: Any) -> Markup:
    """Strict JSON that may stand within a script element: no text in it can end that, or be read as markup."""
    return script_text(json.dumps(strict(value), allow_nan=False, separators=(",", ":")))


def script_text(text: str) -> Markup:
    """JSON as a text, made safe to stand within a script element; it says the same."""
    return Markup(text.translate(IN_SCRIPT))
