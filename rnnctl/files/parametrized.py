"""Weights that a file does not hold themselves, but what torch's parametrizations make them of.

Composed are those whose arithmetic the names and shapes tell: weight_norm and spectral_norm, as parametrizations and in
their older forms, and pruning. Any other weight is unknown, and said to be.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rnnctl.files.names import first_of

ARITHMETIC = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# One of these stands in every list of parametrizations, and tells it from a module that is called so.
ORIGINALS = ("original", "original0")
# The same tensors in torch's older form and in a list of parametrizations.
TWINS = ({"_g": "original0", "_v": "original1"}, {"_orig": "original", "_u": "0._u", "_v": "0._v"})
# In training mode every use of the weight goes on with the power iteration.
WEIGHT_NORM, SPECTRAL = "weight_norm", "spectral_norm, as in eval mode"
# Singular vectors that lag one training step behind their matrix are off by its learning rate.
NEAR = 0.1

_IN_LIST = re.compile(r"(.*?\.)?parametrizations\.([^.]+)\.(original\d*|\d{1,6}\..+)")
_W_HH = r"(?:.*\.)?(?:weight_hh(?:_l\d{1,6}(?:_reverse)?)?|hidden_to_hidden\.weight)"
# What stands beside it in torch's older forms, in fastai's WeightDropout, in older spectral norms.
_OF_W_HH = re.compile(rf"({_W_HH})(_g|_v|_orig|_raw|_bar)")

# Kind of part -> the name of its tensor.
Parts = Mapping[str, str]
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Composed:
    """The tensors of a file, with weights in the place of what they are made of.

    Attributes:
        tensors: name -> tensor.
        how: weight -> what it is composed by: "weight_norm".
        unknown: weight -> why it cannot be composed; what it is made of is among the tensors.
    """

    tensors: Mapping[str, Tensor]
    how: Mapping[str, str]
    unknown: Mapping[str, str]

    def notes(self, source: str) -> tuple[str, ...]:
        """What to tell the user of what was composed."""
        told = first_of([f"{weight} ({how})" for weight, how in self.how.items()])
        return (f"{source}: composed as torch does it: {told}",) if told else ()


def parts_by_weight(names: Collection[str]) -> dict[str, Parts]:
    """The weights that are not there themselves, and the names of what they are made of.

    Args:
        names: of the tensors of a file or a model.
    Returns:
        Weight -> kind of part -> name: "weight_hh_l0" -> {"_g": "weight_hh_l0_g", "_v": "weight_hh_l0_v"}.
    """
    found = {**_of_names_of_W_hh(names), **_hooked(names), **_in_lists(names)}
    return {weight: parts for weight, parts in found.items() if weight not in names}


def composed(tensors: Mapping[str, Tensor], left: Collection[str] = ()) -> Composed:
    """Weights in the place of what they are made of, as far as names, shapes and torch's own arithmetic tell them.

    Args:
        tensors: name -> tensor of any shape.
        left: weights that stay in parts.
    """
    instead: dict[str, dict[str, Tensor]] = {}
    how, unknown = {}, {}
    for weight, parts in parts_by_weight(tensors).items():
        if weight in left:
            continue
        with torch.no_grad():
            found = _composed({kind: tensors[name] for kind, name in parts.items()})
        if found is not None:
            first, *others = parts.values()
            instead |= {first: {weight: found[0]}, **{name: {} for name in others}}
            how[weight] = found[1]
        elif _is_surely_made(weight, parts):
            unknown[weight] = _unknown(weight, parts)
    placed = [instead.get(name, {name: tensor}) for name, tensor in tensors.items()]
    return Composed({name: tensor for each in placed for name, tensor in each.items()}, how, unknown)


def _in_lists(names: Collection[str]) -> dict[str, dict[str, str]]:
    """What torch.nn.utils.parametrize keeps: "parametrizations.weight.original" and what is beside it."""
    found: dict[str, dict[str, str]] = {}
    for each in filter(None, map(_IN_LIST.fullmatch, names)):
        found.setdefault((each[1] or "") + each[2], {})[each[3]] = each[0]
    return {weight: parts for weight, parts in found.items() if _is_list(parts)}


def _hooked(names: Collection[str]) -> dict[str, dict[str, str]]:
    """What torch's older forms keep beside each other: "weight_g" and "weight_v"."""
    there, found = set(names), {}
    for kinds in HOOKED:
        for weight in (name.removesuffix(kinds[0]) for name in names if name.endswith(kinds[0])):
            parts = {kind: weight + kind for kind in kinds}
            if there.issuperset(parts.values()):
                found[weight] = parts
    return found


def _of_names_of_W_hh(names: Collection[str]) -> dict[str, dict[str, str]]:
    """Tensors that are called as a W_hh and something more, of which one may be made: "weight_hh_l0_raw"."""
    return {each[1]: {each[2]: each[0]} for each in filter(None, map(_OF_W_HH.fullmatch, names))}


def _composed(parts: Values) -> tuple[Tensor, str] | None:
    """The weight, and what it is composed by; None where the parts do not tell it."""
    real = [part for kind, part in parts.items() if kind != "_mask"]
    if any(part.dtype not in ARITHMETIC or part.dtype != real[0].dtype or part.numel() == 0 for part in real):
        return None
    if _is_list(parts):
        return _of_list(parts)
    how, formula = HOOKED.get(tuple(parts), ("", lambda *_: None))
    weight = formula(*parts.values())
    return None if weight is None else (weight, how)


def _of_list(parts: Values) -> tuple[Tensor, str] | None:
    """The weight that a list of parametrizations makes, each of what the one before it gives."""
    originals = {kind for kind in parts if kind.startswith("original")}
    states: dict[int, dict[str, Tensor]] = {}
    for kind in parts.keys() - originals:
        number, _, name = kind.partition(".")
        states.setdefault(int(number), {})[name] = parts[kind]
    weight, how = parts.get("original"), list[str]()
    if originals == {"original0", "original1"} and 0 not in states:
        weight, how = _weight_norm(parts["original0"], parts["original1"]), [WEIGHT_NORM]
    elif originals != {"original"} or not states:
        return None
    # One without a state leaves no trace between others: what it does is not known.
    for place in range(len(how), max(states, default=-1) + 1):
        if weight is None or states.get(place, {}).keys() != {"_u", "_v"}:
            return None
        weight = _spectral_norm(weight, states[place]["_u"], states[place]["_v"], last="v")
        how.append(SPECTRAL)
    return None if weight is None else (weight, " and ".join(how))


def _weight_norm(g: Tensor, v: Tensor) -> Tensor | None:
    """v with the norms g, along the axis that g has; None where g fits none."""
    kept = [tuple(size if i == axis else 1 for i, size in enumerate(v.shape)) for axis in range(v.dim())]
    if g.dim() == 0:
        return torch._weight_norm(v, g, -1) if v.dim() > 0 else None
    # Two axes fit where both have one element: the norms along them are the same.
    return torch._weight_norm(v, g, kept.index(tuple(g.shape))) if tuple(g.shape) in kept else None


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor, last: str = "u") -> Tensor | None:
    """The weight over u^T W v; None where u and v do not tell which axis of the weight W has in front.

    Args:
        last: which of u and v the power iteration has made of the other one.
    """
    sizes = [(size, weight.numel() // size) for size in weight.shape]
    fitting = [axis for axis, each in enumerate(sizes) if each == (u.numel(), v.numel())]
    if u.dim() != 1 or v.dim() != 1 or not fitting:
        return None
    matrices = [weight.movedim(axis, 0).reshape(weight.shape[axis], -1) for axis in fitting]
    sigmas = [torch.dot(u, torch.mv(matrix, v)) for matrix in matrices]
    # A square matrix may stand as it is, or turned: u and v follow from each other by the right one alone.
    away = [(torch.mv(m, v), u) if last == "u" else (torch.mv(m.mT, u), v) for m in matrices]
    off = [float(torch.dist(normalize(made, dim=0), kept)) for made, kept in away]
    nearest = min(range(len(off)), key=off.__getitem__)
    others = [i for i in range(len(off)) if i != nearest and not torch.isclose(sigmas[i], sigmas[nearest])]
    certain = not others or off[nearest] < NEAR * min(1, *(off[i] for i in others))
    return weight / sigmas[nearest] if certain else None


def _pruned(original: Tensor, mask: Tensor) -> Tensor | None:
    return mask.to(original.dtype) * original if mask.shape == original.shape else None


def _is_surely_made(weight: str, parts: Parts) -> bool:
    """Whether a weight is made of these parts: two tensors called W_g and W_v may well be something else."""
    return _is_list(parts) or re.fullmatch(_W_HH, weight) is not None


def _unknown(weight: str, parts: Parts) -> str:
    """That a weight is not known, why, and what to do."""
    orthogonal = "orthogonal, whose map (matrix_exp, cayley or householder) the file does not tell"
    by = orthogonal if parts.keys() == {"original", "0.base"} else "something that the file does not tell"
    remedy = " (torch.nn.utils.parametrize.remove_parametrizations leaves it)" if _is_list(parts) else ""
    return f"{weight} is not known: it is made of {', '.join(parts.values())} by {by}. Save the weight itself{remedy}"


def _is_list(parts: Collection[str]) -> bool:
    """Whether parts are of a list of parametrizations."""
    return any(kind in parts for kind in ORIGINALS)


# Kinds of parts of torch's older forms -> what they are composed by, and how.
HOOKED: Mapping[tuple[str, ...], tuple[str, Callable[..., Tensor | None]]] = {
    # With one axis, b_g and b_v would be a weight.
    ("_g", "_v"): (WEIGHT_NORM, lambda g, v: _weight_norm(g, v) if v.dim() > 1 else None),
    ("_orig", "_u", "_v"): (SPECTRAL, _spectral_norm),
    ("_orig", "_mask"): ("pruning", _pruned),
}
