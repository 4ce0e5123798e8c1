"""What a node of autograd's graph does with its inputs, by the name of its type: all that is known of operations."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

# One input -> the inputs that it is multiplied with. Of an operation that is not listed every other one counts.
_PAIR = {0: (1,), 1: (0,)}
_AFTER_ADDEND = {0: (), 1: (2,), 2: (1,)}
_WITH_BIAS = {0: (1,), 1: (0,), 2: ()}
_MULTIPLIES: Mapping[str, Mapping[int, tuple[int, ...]]] = {
    **dict.fromkeys(("Mm", "Bmm", "Mv", "Dot", "Vdot", "Mul", "Div", "Ger", "PreluKernel"), _PAIR),
    **dict.fromkeys(("Addmm", "Baddbmm", "Addbmm", "Addmv", "Addr", "Addcmul", "Addcdiv"), _AFTER_ADDEND),
    **dict.fromkeys(("Linear", "Convolution", "ConvolutionOverrideable", "MkldnnConvolution"), _WITH_BIAS),
    **dict.fromkeys(("NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm", "CudnnBatchNorm"), _WITH_BIAS),
    "FusedRmsNorm": _PAIR,
    "Lerp": {0: (2,), 1: (2,), 2: (0, 1)},
    # input, W_ih, W_hh, b_ih, b_hh, h_0, c_0 of one layer in one direction.
    "MkldnnRnnLayer": {0: (1,), 1: (0,), 2: (5,), 3: (), 4: (), 5: (2,), 6: ()},
    # The products of x and h with their weights, made before; c; biases.
    "ThnnFusedLstmCell": {0: (2,), 1: (2,), 2: (0, 1), 3: (), 4: ()},
    "ThnnFusedGruCell": {0: (2,), 1: (2,), 2: (0, 1), 3: (), 4: ()},
}
_ADDENDS = frozenset(
    ("Add", "Sub", "Rsub", "Cat", "Stack", "Where", "Maximum", "Minimum", "CopySlices", "CopyBackwards", "IndexPut")
    + ("MaskedFill", "SelectScatter", "SliceScatter", "IndexAdd", "IndexCopy", "Scatter", "MaskedScatter", "Sum")
)
# Inputs that lie elsewhere, with the same numbers: a gradient keeps its norm on the way back.
_REARRANGES = frozenset(
    ("T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Reshape", "Squeeze", "Unsqueeze", "Slice")
    + ("Select", "Split", "SplitWithSizes", "UnsafeSplit", "UnsafeSplitWithSizes", "Unbind", "Clone", "Alias")
    + ("ToCopy", "ToCopyBackward", "Contiguous", "Flip", "Roll", "Mkldnn", "Narrow", "AsStrided", "Identity")
)
# Products with what is given from outside are of data; with what has no gradient they do not make a weight.
_OF_DATA = frozenset(
    ("Mm", "Bmm", "Mv", "Dot", "Vdot", "Addmm", "Baddbmm", "Addbmm", "Addmv", "Ger", "Addr", "Linear", "Convolution")
    + ("ConvolutionOverrideable", "MkldnnConvolution", "NativeLayerNorm", "NativeBatchNorm", "NativeGroupNorm")
    + ("CudnnBatchNorm", "FusedRmsNorm", "MkldnnRnnLayer", "CudnnRnn", "MiopenRnn", "ThnnFusedLstmCell")
    + ("ThnnFusedGruCell", "Trilinear", "Cdist")
)
# Rows of a weight picked by numbers: the numbers are the data.
_LOOKS_UP = frozenset(("Embedding", "EmbeddingBag", "IndexSelect", "Gather"))
_TAKES_PART = frozenset(("Select", "Unbind", "Slice", "Split", "SplitWithSizes", "UnsafeSplit", "UnsafeSplitWithSizes"))
_MAY_MASK = frozenset(("Mul", "Div", "NativeDropout", "FusedDropout", "Add", "Sub", "MaskedFill"))
# What a gradient's axis of sums is, counted from the last: the columns of a weight, for each of its inputs.
_SUMMED: Mapping[str, Mapping[int, int]] = {
    **dict.fromkeys(("Mm", "Bmm"), {0: -1, 1: -2}),
    **dict.fromkeys(("Addmm", "Baddbmm"), {1: -1, 2: -2}),
    "Mv": {0: -1, 1: -1},
    "Addmv": {1: -1, 2: -1},
    "Linear": {0: -1, 1: -1},
}
_CONVOLUTIONS = frozenset(("Convolution", "ConvolutionOverrideable", "MkldnnConvolution"))


@dataclass(frozen=True)
class Operation:
    """One type of node.

    Attributes:
        name: as in "MmBackward0", without its end.
        is_own: whether it is a package's or user's own ``torch.autograd.Function``.
        rearranges: whether it has the numbers of its inputs, in other places.
        joins: whether it puts several inputs beside one another.
        of_data: whether a constant input is data, so that the result is not made of a weight alone.
        looks_up: whether it picks rows by numbers, which are data.
        takes_part: whether it takes parts out along an axis.
        may_mask: whether it leaves every number in its place where all but one of its inputs are constants.
    """

    name: str
    is_own: bool
    rearranges: bool
    joins: bool
    of_data: bool
    looks_up: bool
    takes_part: bool
    may_mask: bool

    @property
    def is_convolution(self) -> bool:
        """Whether the axes behind the second are places."""
        return self.name in _CONVOLUTIONS

    def multiplied_with(self, place: int, inputs: int) -> tuple[int, ...]:
        """The inputs that this one is multiplied with."""
        if self.name in _ADDENDS or self.rearranges:
            return ()
        known = _MULTIPLIES.get(self.name)
        if known is None:
            return tuple(other for other in range(inputs) if other != place)
        return known.get(place, ())

    def summed_axis(self, place: int, axes: int) -> int | None:
        """Along which axis of an input, counted from the last, the product sums; None where none is known."""
        if self.is_convolution:
            # Channels: the second axis of weight and input.
            return 1 - axes if place < 2 else None
        return _SUMMED.get(self.name, {}).get(place)


@cache
def operation(kind: type) -> Operation:
    """What a node of this type does."""
    full = kind.__name__
    name = full.rstrip("0123456789").removesuffix("Backward")
    # Those of Python have a forward class; torch's own are written in C++.
    is_own = hasattr(kind, "_forward_cls")
    return Operation(
        name,
        is_own,
        rearranges=not is_own and name in _REARRANGES,
        joins=not is_own and name in ("Cat", "Stack"),
        of_data=is_own or name in _OF_DATA,
        looks_up=not is_own and name in _LOOKS_UP,
        takes_part=not is_own and name in _TAKES_PART,
        may_mask=not is_own and name in _MAY_MASK,
    )
