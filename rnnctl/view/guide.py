"""The guide's chapters: package data in Markdown, as it stands or drawn for a terminal."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

from rnnctl.errors import InputError, did_you_mean
from rnnctl.view.terminal import Terminal

# In the order in which to read them; each is a file of that name in rnnctl/guide.
CHAPTERS = ("shapes", "gradients", "your-model", "how-far-back", "why", "repair", "scripts", "library")
BAR = re.compile(r" [▏▎▍▌▋▊▉█]")
IN_ASCII = str.maketrans("•─│├└▶▏▎▍▌▋▊▉█●◉○░·", "*-||`>   #####o@x:.")
# Where a line goes on that does not fit, if it has no columns of its own.
INDENT = 4


def chapter_named(words: Sequence[str]) -> str:
    """The chapter that is meant: "your-model" by "your model", by "Your_Model" or by two words.

    Raises:
        InputError: there is none of that name; with the nearest, and with all of them.
    """
    asked = " ".join(words)
    name = _key(asked).removesuffix(".md")
    begun = [each for each in CHAPTERS if name and each.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if name not in CHAPTERS:
        meant = did_you_mean(name, CHAPTERS)
        raise InputError(f"the guide's chapters are {', '.join(CHAPTERS)}; got {asked!r}.{meant}")
    return name


def text_named(words: Sequence[str]) -> str:
    """The Markdown of a chapter, or of one section of one by its heading, as "security".

    Raises:
        InputError: as of ``chapter_named``.
    """
    asked = _key(" ".join(words))
    sections = (part for name in CHAPTERS for part in re.split(r"^(?=## )", chapter(name), flags=re.MULTILINE)[1:])
    found = next((part for part in sections if _key(part.splitlines()[0].removeprefix("## ")) == asked), None)
    return chapter(chapter_named(words)) if found is None or asked in CHAPTERS else found.rstrip() + "\n"


def _key(words: str) -> str:
    return re.sub(r"[\s_-]+", "-", words.strip().lower())


def chapter(name: str) -> str:
    """The Markdown of one of ``CHAPTERS``."""
    return files("rnnctl").joinpath("guide", f"{name}.md").read_text(encoding="utf-8")


def contents() -> str:
    """Every chapter with its one line, which is what it begins with below its title."""
    width = max(map(len, CHAPTERS))
    lines = [f"  {name:{width}}  {chapter(name).splitlines()[2]}" for name in CHAPTERS]
    more = ["rnnctl explain TERM explains a word of the output,", "rnnctl help COMMAND the options of a command."]
    return "\n".join(["rnnctl guide CHAPTER shows one of these:", "", *lines, "", *more, ""])


def shown(markdown: str, terminal: Terminal) -> str:
    """A chapter as it stands where no terminal is, and else drawn in its width."""
    text = markdown if terminal.width is None else _drawn(markdown, terminal)
    return text.translate(IN_ASCII) if terminal.ascii_only else text


def _drawn(markdown: str, terminal: Terminal) -> str:
    from rich.theme import Theme

    from rnnctl.view.tables import console_of

    console = console_of(terminal)
    # rich's own is on black, which is no help on a white screen.
    with console.use_theme(Theme({"markdown.code": "bold cyan"})):
        console.print(_renderer()(markdown))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


@cache
def _renderer() -> type:
    """rich's Markdown with headings and blocks of code of our own; made where it is needed, for it loads a parser."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import CodeBlock, Heading, Markdown
    from rich.text import Text

    class LeftHeading(Heading):
        """Such as "## Words": at the left, as everything else is, and to be told from text without colour."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text(f"{'#' * int(self.tag[1:])} ", style="bold").append_text(self.text)

    class FoldedCode(CodeBlock):
        """Code and output, in which no word is broken and what is in columns stays so."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text("\n".join(folded(str(self.text).rstrip("\n"), options.max_width)), style="cyan", no_wrap=True)

    class Chapter(Markdown):
        elements = {**Markdown.elements, "heading_open": LeftHeading, "fence": FoldedCode, "code_block": FoldedCode}

    return Chapter


def folded(code: str, width: int) -> Iterator[str]:
    """The lines of a block of code or output, none longer than a width.

    As in tables for a narrow terminal, bars go first; then a line goes on below its last column.
    """
    for i, paragraph in enumerate(code.split("\n\n")):
        if i:
            yield ""
        lines = paragraph.split("\n")
        if max(map(len, lines)) > width and (bars := [found.start() for found in map(BAR.search, lines) if found]):
            lines = [line[: min(bars)] if _has_columns(line, min(bars)) else line for line in lines]
        for line in lines:
            yield from _broken(line.rstrip(), width)


def _has_columns(line: str, end: int) -> bool:
    """Whether a line is of the table whose last column, of bars, begins here: a row, its titles or their rule."""
    return line[end - 2 : end + 1].strip(" ─") == ""


def _broken(line: str, width: int) -> Iterator[str]:
    """One line in pieces of a width, those behind the first below its last column, or else a little to the right."""
    if line.strip(" ─") == "":
        line = line[:width]
    columns = [found.end() for found in re.finditer(r"\S {2,}(?=\S)", line[: 3 * width // 5 + 1])]
    indent = columns[-1] if columns else min(INDENT, width // 2)
    while len(line) > width:
        cut = _last_gap(line, indent + 1, width)
        yield line[:cut].rstrip()
        line = " " * indent + line[cut:].lstrip()
    yield line


def _last_gap(line: str, start: int, width: int) -> int:
    """Where a line is best broken: at a space, behind a comma, and only within a word where there is neither."""
    space, comma = line.rfind(" ", start, width + 1), line.rfind(",", start, width)
    return space if space > 0 else comma + 1 if comma > 0 else width
