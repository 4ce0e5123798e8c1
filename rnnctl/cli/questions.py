"""The questions that can be asked over a grid: their options, their answers, the number that they are asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rnnctl.cli.commands import flow, gradnorm, lyapunov, spectrum, truncation
from rnnctl.cli.options.command import CommandOptions
from rnnctl.errors import InputError, did_you_mean
from rnnctl.results import Answers, Result


@dataclass(frozen=True)
class Question:
    """One of the commands.

    Attributes:
        options: what it takes.
        asked: (options, experiment) -> the result.
        answers: options -> what each kind of result that may come out can be asked.
        value: the scalar that it is asked for first of all.
    """

    options: type[CommandOptions]
    asked: Callable[[Any, Any], Result]
    answers: Callable[[Any], tuple[Answers, ...]]
    value: str


def question_named(name: str) -> Question:
    """The question of that name; InputError where there is none, with the nearest."""
    if name not in QUESTIONS:
        raise InputError(f"a sweep asks {', '.join(QUESTIONS)}; got {name!r}.{did_you_mean(name, QUESTIONS)}")
    return QUESTIONS[name]


QUESTIONS: Mapping[str, Question] = {
    "gradnorm": Question(gradnorm.GradnormOptions, gradnorm.asked, gradnorm.answers, "factor_per_step"),
    "flow": Question(flow.FlowOptions, flow.asked, flow.answers, "lag_to_one_percent"),
    "truncation": Question(truncation.TruncationOptions, truncation.asked, truncation.answers, "window_for_cosine_99"),
    "spectrum": Question(spectrum.SpectrumOptions, spectrum.asked, spectrum.answers, "spectral_radius"),
    "lyapunov": Question(lyapunov.LyapunovOptions, lyapunov.asked, lyapunov.answers, "largest"),
}
