"""``rnnctl explain``."""

from dataclasses import dataclass
from typing import ClassVar

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.output import OutputOptions
from rnnctl.cli.options.question import TermArgument
from rnnctl.cli.output.emit import terminal
from rnnctl.cli.pages import Page
from rnnctl.cli.streams import write_stdout


@dataclass(frozen=True)
class ExplainOptions(CommandOptions):
    """What ``rnnctl explain`` takes."""

    page: ClassVar[Page] = Page("gradients", ("rnnctl explain cancellation", "rnnctl explain factor per step"))

    asked: TermArgument


def explain(given: ExplainOptions) -> None:
    """What a word of the output means, how it is computed, and which command shows it; without TERM all words."""
    from rnnctl.view.explanation import explanation, word_list
    from rnnctl.view.words import explained

    screen, term = terminal(OutputOptions()), " ".join(given.asked.term or ())
    write_stdout(explanation(explained(term), screen) if term else word_list(screen))
