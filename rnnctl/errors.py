"""What can go wrong, by whose hand: the message says what was expected, what came, what to try."""


class RnnctlError(Exception):
    """Something that rnnctl foresaw; the command line prints it without a traceback."""


class InputError(RnnctlError, ValueError):
    """The user's input cannot be used: a flag, a file, a tensor, a configuration."""


class ShapeError(InputError):
    """A tensor has the wrong shape, or two tensors disagree on one."""


class DtypeError(InputError, TypeError):
    """A tensor has the wrong dtype, or two tensors disagree on one."""


class DeviceError(InputError):
    """A tensor is on the wrong device, or the device is not there."""


class TooLargeError(InputError):
    """The work does not fit into memory; found out before anything was allocated."""


class VerificationError(RnnctlError):
    """Two computations of one quantity disagree beyond their tolerance."""
