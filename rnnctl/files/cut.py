"""The steps that are taken of longer sequences, and of what goes with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnctl.errors import InputError


@dataclass(frozen=True)
class Cut:
    """``take`` steps after the first ``skip``; all of them where it is None."""

    skip: int = 0
    take: int | None = None

    def along(self, array: NDArray[Any], axis: int) -> NDArray[Any]:
        """The steps of an array, of any shape, whose ``axis`` is time; fewer where it has fewer."""
        end = None if self.take is None else self.skip + self.take
        return array[(slice(None),) * axis + (slice(self.skip, end),)]

    def values(self, values: NDArray[Any], source: str) -> NDArray[Any]:
        """Sequences (batch, time, ...) cut; InputError where no step is left."""
        if self.skip >= values.shape[1]:
            raise InputError(f"--skip-steps {self.skip} leaves no step of {source}, which has {values.shape[1]}")
        return self.along(values, 1)

    def lengths(self, lengths: NDArray[np.int64], seq_len: int, source: str) -> NDArray[np.int64]:
        """Real steps (batch,) of the whole sequences as those of the ``seq_len`` steps that are left.

        Raises:
            InputError: a sequence that has no step left.
        """
        left = np.minimum(lengths - self.skip, seq_len)
        if left.min() < 1:
            i = int(left.argmin())
            raise InputError(
                f"--skip-steps {self.skip} leaves no step of sequence {i} of {source}, which has {lengths[i]}"
            )
        return left

    def target(self, target: NDArray[Any], batch: int, seq_len: int) -> NDArray[Any]:
        """A target with one value for every step of the whole sequences, cut alike; any other as it is.

        Args:
            target: (batch, time), (batch, time, output), or for one sequence without its batch axis.
            batch, seq_len: of the sequences before they were cut.
        """
        if self == WHOLE:
            return target
        if target.shape[:2] == (batch, seq_len):
            return self.along(target, 1)
        return self.along(target, 0) if batch == 1 and target.shape[:1] == (seq_len,) else target


WHOLE = Cut()
