"""Named initialisations of the recurrent matrix W_hh."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from rnnctl.errors import InputError

INITIALIZERS = ("default", "orthogonal", "identity", "gaussian")


def initialize_W_hh(W_hh: Float[Tensor, "hidden hidden"], init: str, gain: float, generator: Generator) -> None:
    """Fill W_hh in place.

    Args:
        W_hh: shape (hidden, hidden).
        init: "default" keeps torch's uniform(-1/sqrt(H), 1/sqrt(H)), of variance 1/(3H);
            "orthogonal" a random orthogonal matrix; "identity" I; "gaussian" N(0, 1/H).
        gain: factor on W_hh, whichever way it was drawn; gaussian becomes N(0, gain^2/H).
        generator: source of the random numbers.
    Raises:
        InputError: an unknown name, or a gain that is not finite.
    Source: orthogonal: Saxe et al. 2014, arXiv:1312.6120; identity: Le, Jaitly & Hinton 2015,
        arXiv:1504.00941; gaussian: Sompolinsky, Crisanti & Sommers 1988.
    """
    if init not in INITIALIZERS:
        raise InputError(f"init must be one of {', '.join(INITIALIZERS)}; got {init!r}")
    if not math.isfinite(gain):
        raise InputError(f"gain must be a finite number; got {gain}")
    with torch.no_grad():
        if init == "orthogonal":
            nn.init.orthogonal_(W_hh, generator=generator)
        elif init == "identity":
            nn.init.eye_(W_hh)
        elif init == "gaussian":
            nn.init.normal_(W_hh, std=W_hh.shape[0] ** -0.5, generator=generator)
        W_hh.mul_(gain)
