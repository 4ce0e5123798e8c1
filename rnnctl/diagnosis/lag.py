"""How far back a task reaches: which past inputs help a linear prediction of its target on held-out sequences."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

NO_TARGET = "no target: not known"
# Of the target's variance: what a further lag has to explain of it to count as used.
LEAST_GAIN = 0.05
# Of what the longest history explains: so much is nearly all.
NEARLY_ALL = 0.95
# Of all that inputs explain: what is too little to be needed, where others than those of long ago explain the rest.
FAR_SHARE = 0.1
# Of what the target of the step before leaves.
PART_OF_THE_REST = 0.3
# Of the target's variance: what a regression that explains all of it leaves by rounding and its penalty.
ROUNDED = 1e-6
# What is found has to explain this much more than chance does: the best of so many shuffled targets, more of them where
# there are few samples.
FEWEST_SHUFFLES, MOST_SHUFFLES, SHUFFLED, BEYOND_CHANCE = 5, 60, 2000, 1.3
FOLDS, MOST_SAMPLES, MOST_CLASSES = 5, 500, 64
# Where there are more, so many random mixtures of them stand for all.
MOST_FEATURES, MOST_OUTPUTS = 8, 4
# Lags that are used together with all before them: so many numbers from 1 to T.
HISTORIES = 12


@dataclass(frozen=True)
class Lag:
    """How many steps lie between an input and the output that needs it.

    Attributes:
        steps: None where that is not known.
        source: "given", "estimated" or "not known".
        words: what it rests on.
        explained: the share of the target's variance that a ridge regression up to it explains on held-out data.
        taught: the steps that a gradient has to cross for it, where these are fewer: a sum that goes on from step to
            step reaches back to the start, and is learned from one step to the next. None where they are as many.
    """

    steps: int | None
    source: str
    words: str
    explained: float | None = None
    taught: int | None = None

    @property
    def because(self) -> str:
        """Why it is not known, where it is not."""
        return self.words.removesuffix(": not known")


@dataclass(frozen=True, eq=False)
class _Samples:
    """Pairs of a history and a target.

    Attributes:
        history: inputs at each lag, (lags, samples, features), 0 before the first step.
        target: (samples, outputs), of mean 0 and in all of variance 1.
        fold: which part is held out with each sample, (samples,).
        before: the target of the step before, scaled alike, (samples, outputs); 0 where there is none.
    """

    history: Float[Tensor, "lags samples features"]
    target: Float[Tensor, "samples outputs"]
    fold: Tensor
    before: Float[Tensor, "samples outputs"]


def estimated_lag(x: Tensor, target: Tensor, lengths: Tensor | None = None, *, at_every_step: bool = False) -> Lag:
    """The longest lag that a ridge regression on lagged inputs can use on held-out data.

    Two ways are tried: single lags one after the other, each on what those before it leave (a target that is one input
    of long ago), and all lags up to one together (a sum over many). Of both the longest lag counts that explains more
    than the best of shuffled targets.

    Args:
        x: inputs, shape (batch, time, input), or whole numbers (batch, time).
        target: numbers (batch, time, output) or (batch, output), classes (batch, time) or (batch,).
        lengths: real steps of every sequence, shape (batch,), or None.
        at_every_step: whether the target of every step is learned, so that those before it teach a state to hold them.
    Source: Hoerl & Kennard 1970 (ridge); held out by folds of sequences, or of time where there are too few.
    """
    outputs = _outputs(target, x)
    if outputs is None:
        return Lag(None, "not known", "the target is neither one of every sequence nor one of every step: not known")
    generator = torch.Generator().manual_seed(0)
    samples = _samples(_features(x), outputs, lengths, generator)
    if samples is None:
        return Lag(None, "not known", "the target is constant, or there are too few sequences and steps: not known")
    lag, share = _longest(samples, generator)
    if lag is None:
        return Lag(None, "not known", "no past input helps a linear prediction on held-out data: not known")
    words = f"a ridge regression on inputs up to {lag} steps back explains {100 * share:.0f} % of the target, held out"
    taught = _from_the_step_before(samples, lag, share, generator) if at_every_step and lag > 1 else None
    return Lag(lag, "estimated", words, share, taught)


def _longest(samples: _Samples, generator: torch.Generator, slack: float = 0.0) -> tuple[int | None, float]:
    """The longest lag that explains more of the target than chance does, and what all up to it explain.

    Args:
        slack: how much more than single lags a sum over many has to explain, beside a little.
    """
    single, gained = _single_lags(samples, generator)
    together, explained = _lags_together(samples, generator)
    # Single lags are told exactly; they serve where no sum over many explains more.
    is_single = single is not None and gained >= NEARLY_ALL * explained - slack
    lag, share = (single, gained) if is_single else (together, explained)
    return (single, gained) if single is not None and lag is not None and single > lag else (lag, share)


def _from_the_step_before(samples: _Samples, lag: int, share: float, generator: torch.Generator) -> int | None:
    """How far back inputs have to reach for what the target of the step before leaves; None if no less far.

    A state that holds the target of one step needs no more for that of the next: y_t = y_{t-1} + x_t is learned from
    step to step, however long the sum.
    """
    # Beside it 1, since a running target has another mean in the sequences that are held out.
    known = torch.cat((samples.before, torch.ones_like(samples.before[:, :1])), 1).unsqueeze(0)
    left = samples.target - _predicted(known, samples.target, samples.fold)[0]
    size = float(left.square().mean(0).sum())
    if size < ROUNDED:
        return 1
    # A little of a little is no need, and all of a little is: a smooth target of long ago differs by that alone.
    little = min(FAR_SHARE / size, PART_OF_THE_REST)
    shorter, gained = _longest(replace(samples, target=left / math.sqrt(size)), generator, little)
    if gained <= little:
        shorter, gained = None, 0.0
    needed = max(1, shorter or 0)
    return needed if needed < lag and 1 - size * (1 - gained) >= NEARLY_ALL * share else None


def explained_within(x: Tensor, target: Tensor, lengths: Tensor | None, lag: int) -> float:
    """The share of the target's variance that a ridge regression on inputs up to a lag explains on held-out data.

    Args:
        x, target, lengths: as of ``estimated_lag``, which has found a lag in them.
    """
    outputs = _outputs(target, x)
    samples = None if outputs is None else _samples(_features(x), outputs, lengths, torch.Generator().manual_seed(0))
    assert samples is not None
    left = _residual(samples, range(lag + 1))
    return 1 - float(left.square().mean(0).sum())


def _features(x: Tensor) -> Tensor:
    """Inputs as numbers, shape (batch, time, features), of a few random mixtures where there are many."""
    if not x.is_floating_point():
        tokens = x.long()
        wide = F.one_hot(tokens - tokens.min()) if int(tokens.max() - tokens.min()) < MOST_CLASSES else _codes(tokens)
        x = wide.flatten(2)
    wide = torch.nan_to_num(x.detach().cpu().double().flatten(2))
    wide = wide - wide.mean((0, 1))
    wide = wide / wide.std((0, 1)).clamp_min(1e-12)
    return _mixed(wide, MOST_FEATURES)


def _mixed(wide: Tensor, most: int) -> Tensor:
    """So many random mixtures of what stands along the last axis, (..., numbers), where there are more."""
    if wide.shape[-1] <= most:
        return wide
    drawn = torch.randn(wide.shape[-1], most, generator=torch.Generator().manual_seed(1), dtype=wide.dtype)
    return wide @ drawn / math.sqrt(wide.shape[-1])


def _codes(tokens: Tensor) -> Tensor:
    """A random vector for every token, shape (..., features)."""
    table = torch.randn(int(tokens.max()) + 1, MOST_FEATURES, generator=torch.Generator().manual_seed(1))
    return table[tokens.clamp_min(0)]


def _outputs(target: Tensor, x: Tensor) -> Tensor | None:
    """The target as numbers, shape (batch, time or 1, outputs): classes by a column each."""
    batch, steps = x.shape[:2]
    found = target.detach().cpu()
    if found.dim() == 0 or found.shape[0] != batch:
        return None
    over_time = found.dim() > 1 and found.shape[1] == steps
    if not found.is_floating_point():
        kinds, found = torch.unique(found, return_inverse=True)
        found = F.one_hot(found) if len(kinds) <= MOST_CLASSES else found.unsqueeze(-1)
        over_time = over_time and found.dim() == 3
    wide = torch.nan_to_num(found.double())
    # Numbers of one output may come without an axis for it.
    wide = wide.unsqueeze(-1) if wide.dim() < (3 if over_time else 2) else wide
    return _mixed(wide.flatten(2) if over_time else wide.flatten(1).unsqueeze(1), MOST_OUTPUTS)


def _samples(x: Tensor, target: Tensor, lengths: Tensor | None, generator: torch.Generator) -> _Samples | None:
    """Some of the pairs of a step with a target and its history, drawn at random; None where nothing is to explain."""
    batch, steps = x.shape[:2]
    ends = torch.full((batch,), steps) if lengths is None else lengths.cpu()
    places = _places(target.shape[1] == steps and steps > 1, ends, steps)
    chosen = places[torch.randperm(len(places), generator=generator)[:MOST_SAMPLES]]
    row, t = chosen.unbind(1)
    outputs = target[row, t if target.shape[1] > 1 else torch.zeros_like(t)]
    outputs = outputs - outputs.mean(0)
    size = outputs.square().mean(0).sum().sqrt()
    if len(chosen) < 2 * FOLDS or float(size) < 1e-12:
        return None
    lags = torch.arange(steps)[:, None]
    before = t - lags
    history = torch.where((before >= 0)[..., None], x[row, before.clamp_min(0)], 0.0)
    fold = row % FOLDS if batch >= FOLDS else t * FOLDS // steps
    earlier = target[row, t - 1] - target[row, t] + outputs if target.shape[1] > 1 else torch.zeros_like(outputs)
    before = torch.where((t > 0)[:, None], earlier, 0.0)
    return _Samples(history, outputs / size, fold, before / size)


def _places(over_time: bool, ends: Tensor, steps: int) -> Tensor:
    """Rows and steps at which there is a target, shape (places, 2)."""
    if not over_time:
        return torch.stack([torch.arange(len(ends)), ends - 1], 1)
    return (torch.arange(steps) < ends[:, None]).nonzero()


def _single_lags(samples: _Samples, generator: torch.Generator) -> tuple[int | None, float]:
    """The longest of the lags that are taken one after the other, and what they explain together."""
    chosen, left, before = list[int](), samples.target, 1.0
    while len(chosen) < len(samples.history):
        gains = _explained(samples.history, left, samples.fold) * float(left.square().mean(0).sum())
        lag = int(gains.argmax())
        by_chance = BEYOND_CHANCE * _by_chance(samples, left, generator)
        if lag in chosen or float(gains[lag]) <= max(LEAST_GAIN, by_chance):
            break
        chosen.append(lag)
        left = _residual(samples, chosen)
        now = float(left.square().mean(0).sum())
        if now > before - LEAST_GAIN:
            chosen.pop()
            break
        before = now
    return (max(chosen), 1 - before) if chosen else (None, 0.0)


def _by_chance(samples: _Samples, target: Tensor, generator: torch.Generator) -> float:
    """The most that any lag explains of targets that are given to other samples."""
    shuffled, times = _shuffled(target, generator)
    each = _explained(samples.history, shuffled, samples.fold, parts=times)
    return float(each.max()) * float(target.square().mean(0).sum())


def _shuffled(target: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
    """Several targets (samples, outputs) beside one another, each given to other samples; and how many."""
    times = min(max(SHUFFLED // len(target), FEWEST_SHUFFLES), MOST_SHUFFLES)
    orders = [torch.randperm(len(target), generator=generator) for _ in range(times)]
    return torch.cat([target[order] for order in orders], 1), times


def _residual(samples: _Samples, lags: Sequence[int]) -> Tensor:
    """What a regression on these lags together leaves of the target, held out, shape (samples, outputs)."""
    features = samples.history[list(lags)].transpose(0, 1).flatten(1).unsqueeze(0)
    return samples.target - _predicted(features, samples.target, samples.fold)[0]


def _lags_together(samples: _Samples, generator: torch.Generator) -> tuple[int | None, float]:
    """The shortest history that explains nearly all of what any does, and what it explains."""
    lags = len(samples.history)
    histories = sorted({round(lags ** (i / HISTORIES)) for i in range(HISTORIES + 1)})
    shuffled, times = _shuffled(samples.target, generator)
    explained, by_chance = dict[int, float](), 0.0
    for count in histories:
        features = samples.history[:count].transpose(0, 1).flatten(1).unsqueeze(0)
        explained[count] = float(_explained(features, samples.target, samples.fold)[0])
        by_chance = max(by_chance, float(_explained(features, shuffled, samples.fold, parts=times)[0]))
    best = max(explained.values())
    if best <= max(LEAST_GAIN, BEYOND_CHANCE * by_chance):
        return None, 0.0
    count = next(count for count in histories if explained[count] >= NEARLY_ALL * best)
    return count - 1, explained[count]


def _explained(features: Tensor, target: Tensor, fold: Tensor, parts: int = 1) -> Tensor:
    """The share of the target's variance that is explained on held-out samples, (models,), of many targets the best.

    Args:
        features: (models, samples, features).
        target: (samples, outputs), or as many of them beside one another as there are parts.
    """
    left = (target - _predicted(features, target, fold)).square().mean(1)
    whole = target.square().mean(0)
    left, whole = left.view(len(left), parts, -1).sum(2), whole.view(parts, -1).sum(1)
    best: Tensor = (1 - left / whole.clamp_min(1e-300)).amax(1)
    return best


def _predicted(features: Tensor, target: Tensor, fold: Tensor) -> Tensor:
    """Of every sample what a ridge regression on the samples of other folds makes of it, (models, samples, outputs)."""
    found = features.new_zeros(features.shape[0], *target.shape)
    for held in _folds(fold):
        known = ~held
        mean = target[known].mean(0)
        found[:, held] = mean + _ridge(features[:, known], target[known] - mean, features[:, held])
    return found


def _folds(fold: Tensor) -> Iterator[Tensor]:
    for number in torch.unique(fold):
        held = fold == number
        if bool(held.any()) and not bool(held.all()):
            yield held


def _ridge(known: Tensor, target: Tensor, asked: Tensor) -> Tensor:
    """The prediction for what is asked; in the smaller of the two forms, for features or for samples."""
    samples, features = known.shape[1:]
    # A hundredth of a sample's weight for each: little where there are many, and much where there are few.
    penalty = 0.01 * samples + 1.0
    if features <= samples:
        gram = known.mT @ known + penalty * torch.eye(features, dtype=known.dtype)
        found: Tensor = asked @ torch.linalg.solve(gram, known.mT @ target)
        return found
    gram = known @ known.mT + penalty * torch.eye(samples, dtype=known.dtype)
    found = asked @ (known.mT @ torch.linalg.solve(gram, target.expand(known.shape[0], -1, -1)))
    return found
