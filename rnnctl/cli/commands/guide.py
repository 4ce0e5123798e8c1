"""``rnnctl guide``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import ChapterArgument
from rnnctl.cli.output.emit import terminal
from rnnctl.cli.pages import Page
from rnnctl.cli.streams import write_stdout


@dataclass(frozen=True)
class GuideOptions(CommandOptions):
    """What ``rnnctl guide`` takes."""

    page: ClassVar[Page] = Page("", ("rnnctl guide", "rnnctl guide how far back"))

    read: ChapterArgument


def guide(given: GuideOptions) -> None:
    """A chapter of the guide, or a section by its heading; without one, the list of chapters.

    Plain Markdown where it is not for a terminal.
    """
    from rnnctl.view.guide import contents, shown, text_named

    if not given.read.chapter:
        return write_stdout(contents())
    write_stdout(shown(text_named(given.read.chapter), terminal(OutputOptions())))
