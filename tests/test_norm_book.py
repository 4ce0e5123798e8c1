"""Norms of gradients of any magnitude, against the same numbers in float64, brought near 1 by their largest."""

import math

import pytest
import torch

from rnnctl.gradients.norm_book import NormBook, Runs, SummedBook, norm_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
EXPONENTS = [0, 5, 18, 25, 37, -5, -10, -16, -20, -30, -38, -42, -150, 150, -300, 300]
SHAPES = [(7, 5), (80, 70)]  # on both sides of where norms are taken many at a time


def made(shape, dtype, exponent):
    """Numbers of that magnitude, or None where the dtype has none."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    grad = (torch.randn(shape, dtype=wide) * 10.0**exponent).to(dtype)
    return grad if grad.abs().isfinite().all() and grad.any() else None


def expected(grad):
    wide = grad.to(torch.complex128 if grad.is_complex() else torch.float64)
    largest = float(wide.abs().max())
    return float((wide / largest).norm()) * largest


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_norm_has_the_digits_of_its_dtype_at_any_magnitude(dtype, shape):
    torch.manual_seed(0)
    told = 0
    for exponent in EXPONENTS:
        grad = made(shape, dtype, exponent)
        if grad is None:
            continue
        told += 1
        book, summed = NormBook(), SummedBook(None)
        for key in ("one", "other"):
            book.add(key, grad)
            summed.add(key, grad)
        book.settle()
        summed.settle()
        found = [norm_of(grad), *book.norms.values(), *summed.norms["state"].values()]
        assert found == pytest.approx([expected(grad)] * 5, rel=3e-6), exponent
    assert told >= 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("exponents", [(0, -30), (-30, 0), (-40, -18), (16, -20), (30, 0), (-60, 0)], ids=str)
def test_columns_of_other_magnitudes_are_measured_each(shape, exponents):
    torch.manual_seed(0)
    grad = torch.randn(shape)
    grad[:, :3] *= 10.0 ** exponents[0]
    grad[:, 3:] *= 10.0 ** exponents[1]
    book = SummedBook(Runs(-1, {"state": [(0, 3)], "rest": [(3, shape[1] - 3)]}))
    for use in range(3):
        book.add(use, grad)
    book.settle()
    wide = grad.double()
    for name, part in (("state", wide[:, :3]), ("rest", wide[:, 3:])):
        assert list(book.norms[name].values()) == pytest.approx([float(part.norm())] * 3, rel=3e-6, abs=0)


def test_a_vanishing_and_returning_gradient_is_measured_at_every_step():
    """What served the last step may not serve the next one."""
    torch.manual_seed(0)
    exponents = [0, -14, -16, -25, -36, -39, -60, -44, -60, -17, 3, 17, 30, 37, 0, -40, 30, -40]
    grads = [(torch.randn(80, 70, dtype=torch.float64) * 10.0**exponent).float() for exponent in exponents]
    book = SummedBook(None)
    for use, grad in enumerate(grads):
        book.add(use, grad)
    for use, grad in enumerate(grads):
        assert book.norms["state"][use] == pytest.approx(float(grad.double().norm()), rel=3e-6, abs=0)


def test_nothing_is_0_and_what_is_not_finite_stays_so():
    assert norm_of(torch.zeros(3)) == 0
    assert norm_of(torch.zeros(0)) == 0
    assert math.isnan(norm_of(torch.tensor([1.0, math.nan])))
    assert norm_of(torch.tensor([1.0, math.inf])) == math.inf
    book = SummedBook(None)
    for use, value in enumerate((1e-30, math.nan, 1e-30, math.inf, 1.0)):
        book.add(use, torch.full((80, 70), value))
    found = list(book.norms["state"].values())
    assert found[0] == found[2] == pytest.approx(1e-30 * 5600**0.5, rel=1e-5)
    assert math.isnan(found[1])
    assert found[3] == math.inf
    assert found[4] == pytest.approx(5600**0.5, rel=1e-5)
