"""The words of the output: what each means, how it is computed, what shows it. They stand in ``guide/words.toml``.

Three things are made of them: the sentences beside the scalars of a table, the glossary of the README, and what
``rnnctl explain`` says (``view.explanation``). Read once a process, and only where one of these is shown.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from rnnctl.errors import InputError, nearest

FILE = "guide/words.toml"
GLOSSARY_HEAD = ("| word | what it says |", "|---|---|")


@dataclass(frozen=True)
class Word:
    """One word of the output.

    Attributes:
        term: as the output writes it.
        group: the title of the words that it stands among.
        text: what it is.
        equation: how it is computed; "none, " and why there is none.
        see: a command line that shows it.
        also: its other names, as patterns.
        note: in one line; "" of what is neither scalar nor column.
        beside: the kinds of results whose tables say the note beside the scalar.
        notes: kind of result -> what its tables say there in place of the note.
    """

    term: str
    group: str
    text: str
    equation: str
    see: str
    also: tuple[str, ...] = ()
    note: str = ""
    beside: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The term and its other names."""
        return (self.term, *self.also)

    def said_in(self, schema: str) -> str | None:
        """What a table of this kind of result says beside the scalar; None where it says nothing fixed."""
        return self.notes.get(schema, self.note if schema in self.beside else None)


@cache
def words() -> tuple[Word, ...]:
    """Every word, group by group."""
    found = tomllib.loads(files("rnnctl").joinpath(FILE).read_text(encoding="utf-8"))
    return tuple(
        _word(term, group["title"], fields)
        for group in found.values()
        for term, fields in group.items()
        if term != "title"
    )


def _word(term: str, group: str, fields: Mapping[str, Any]) -> Word:
    lists = {name: tuple(fields[name]) for name in ("also", "beside") if name in fields}
    # The file breaks its lines where it likes.
    return Word(term, group, **{**fields, **lists, "text": " ".join(fields["text"].split())})


def key_of(name: str) -> str:
    """A name as it is compared: in any case, with ``_``, ``-`` and blanks alike."""
    return " ".join(re.split(r"[\s_-]+", name.strip().lower()))


@cache
def _by_key() -> Mapping[str, Word]:
    return {key_of(name): word for word in words() for name in word.names}


@cache
def _by_name() -> Mapping[str, Word]:
    return {name: word for word in words() for name in word.names}


def word_of(name: str) -> Word | None:
    """The word of this name, or of a pattern that the name fits; None where there is none."""
    # Where two words differ in case alone, K and k, it tells them apart.
    if (exact := _by_name().get(name.strip())) is not None:
        return exact
    wanted, known = key_of(name), _by_key()
    fitting = (word for pattern, word in known.items() if _is_pattern(pattern) and fnmatchcase(wanted, pattern))
    return known.get(wanted) or next(fitting, None)


def explained(name: str) -> Word:
    """The word of this name.

    Raises:
        InputError: there is none; with the nearest one.
    """
    word = word_of(name)
    if word is not None:
        return word
    spelled = {key_of(name): name for word in words() for name in word.names if not _is_pattern(name)}
    near = nearest(key_of(name), spelled)
    did_you_mean = "" if near is None else f". Did you mean {spelled[near]}?"
    raise InputError(f"no word {name!r} is explained; 'rnnctl explain' lists those that are{did_you_mean}")


def _is_pattern(name: str) -> bool:
    return not {"*", "?"}.isdisjoint(name)


def note_of(name: str) -> str:
    """In one line what a scalar or a column is.

    Raises:
        KeyError: there is no such word.
    """
    return _by_key()[key_of(name)].note


@cache
def notes_beside(schema: str) -> Mapping[str, str]:
    """Scalar -> what tables of a kind of result say beside it, or how that begins where it depends on values."""
    said = ((word.term, word.said_in(schema)) for word in words())
    return {term: note for term, note in said if note is not None}


def glossary(names: Iterable[str]) -> str:
    """A Markdown table of what these words say, each once and in this order.

    Args:
        names: of scalars, columns or any other words; two names of one word make one row.
    Raises:
        InputError: a name that is not explained.
    """
    found = {word.term: word for word in map(explained, names)}
    # What is neither scalar nor column has no short note.
    rows = (f"| `{_cell(term)}` | {_cell(word.note or word.text)} |" for term, word in found.items())
    return "\n".join((*GLOSSARY_HEAD, *rows)) + "\n"


def _cell(text: str) -> str:
    """Within a Markdown table, where a bar would end the cell."""
    return text.replace("|", "\\|")
