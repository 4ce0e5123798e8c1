"""What ``rnnctl explain`` says: one word in full, or the list of all."""

from itertools import groupby
from textwrap import wrap

from rnnctl.view.terminal import Terminal
from rnnctl.view.words import Word, words

# Where no window sets a limit.
UNLIMITED = 80
# Between the columns of the list, and before them.
GAP, INDENT = 3, 2


def explanation(word: Word, terminal: Terminal) -> str:
    """Its text, its equation and the command that shows it, wrapped to the window."""
    width = terminal.width or UNLIMITED
    parts = (f"{word.term}: {word.text}", f"equation: {word.equation}", f"see it: {word.see}")
    heads = (word.term, "equation", "see it")
    lines = [_bold(head, _wrapped(part, width), terminal) for head, part in zip(heads, parts, strict=True)]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int) -> str:
    return "\n".join(wrap(text, width, break_long_words=False, break_on_hyphens=False))


def _bold(head: str, text: str, terminal: Terminal) -> str:
    """The text with its head in bold, where there is colour; only now, as the marks have no width."""
    return f"\x1b[1m{head}\x1b[0m{text.removeprefix(head)}" if terminal.color else text


def word_list(terminal: Terminal) -> str:
    """All terms, group by group, in as many columns as fit."""
    width = terminal.width or UNLIMITED
    parts = [
        "\n".join((_bold(title, title, terminal), *_columns([word.term for word in group], width)))
        for title, group in groupby(words(), lambda word: word.group)
    ]
    closing = _wrapped("'rnnctl explain TERM' explains one of them; columns and other names are found as well", width)
    return "\n\n".join((*parts, closing)) + "\n"


def _columns(terms: list[str], width: int) -> list[str]:
    """Lines of terms that are read column by column."""
    cell = max(map(len, terms)) + GAP
    across = max(1, (width - INDENT + GAP) // cell)
    down = -(-len(terms) // across)
    rows = (terms[i::down] for i in range(down))
    return [" " * INDENT + "".join(term.ljust(cell) for term in row).rstrip() for row in rows]
