"""The user's own model, loss and batch, from "package.module:name". This runs the user's code, and nothing hides it."""

import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from rnnctl.errors import InputError, did_you_mean, hands_over
from rnnctl.files.model_arguments import not_taken_within, require_takes, told
from rnnctl.files.typed import keyword_arguments, make_importable, missing_module, module_and_name
from rnnctl.files.users_code import UserCodeError, users_code


@hands_over
def load_model(place: str, arguments: Sequence[str], seed: int, features: int | None = None) -> nn.Module:
    """The module that a factory (or class) returns, or one that is there already.

    Args:
        place: "package.module:factory"; the current folder is importable.
        arguments: "name=value" each, values as in TOML; a bare word is a text.
        seed: of torch's generator, before the import and again before the call: what is drawn while
            importing, or that it was imported before, is nothing to the model.
        features: of the data, where they are known, for an example of an argument that is missing.
    Raises:
        InputError: no such module or name, arguments that it does not take, no module returned.
        UserCodeError: the code raised.
    """
    given = keyword_arguments(arguments)
    torch.manual_seed(seed)
    factory = load_callable(place, "--model")
    if isinstance(factory, nn.Module):
        if given:
            raise InputError(f"--model {place} is a module already and takes no --model-arg. Name its class")
        return factory
    require_takes(factory, given, place, features)
    torch.manual_seed(seed)
    with users_code(place):
        try:
            model = factory(**given)
        except Exception as error:
            said = not_taken_within(error, factory, given, place, features)
            if said is not None:
                raise said from None
            error.add_note(told(factory, given, place))
            raise
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise InputError(f"--model {place} must return a torch.nn.Module; got {what}. Name its class, or what makes it")
    return model


def load_loss(place: str) -> Callable[..., Any]:
    """The function at "package.module:function", which takes (output, target)."""
    function = load_callable(place, "--loss-fn")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise InputError(
            f"--loss-fn {place}{inspect.signature(function)} must take (output, target): {error}"
        ) from None
    except ValueError:
        pass  # Written in C: it may well take them.
    return function


@hands_over
def load_batch(place: str, seed: int) -> Any:
    """What the function at "package.module:function" returns without arguments.

    Args:
        seed: as of ``load_model``.
    Raises:
        InputError: no such function, or one that takes arguments.
        UserCodeError: the code raised.
    """
    torch.manual_seed(seed)
    function = load_callable(place, "--batch")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(
            f"--batch {place}{inspect.signature(function)} must be callable without arguments: {error}"
        ) from None
    except ValueError:
        pass  # Written in C: it may well be.
    torch.manual_seed(seed)
    with users_code(place):
        return function()


@hands_over
def load_callable(place: str, flag: str) -> Callable[..., Any]:
    """The function or class at "package.module:name", imported with the current folder first."""
    module_name, name = module_and_name(place, flag)
    found: Any = _import(module_name, flag)
    for part in name.split("."):
        with users_code(module_name):
            there = hasattr(found, part)
        if not there:
            public = [key for key in dir(found) if not key.startswith("_")]
            raise InputError(f"{flag}: {module_name} has no {name!r}.{did_you_mean(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{flag}: {place} must be a function or a class; got {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


@hands_over
def _import(name: str, flag: str) -> ModuleType:
    folder = os.getcwd()
    make_importable(folder)
    # Files may have been written since the folder was last looked at.
    importlib.invalidate_caches()
    try:
        with users_code(name):
            return importlib.import_module(name)
    except UserCodeError as error:
        missing = error.__context__
        if isinstance(missing, ModuleNotFoundError) and missing.name and f"{name}.".startswith(f"{missing.name}."):
            raise missing_module(flag, missing.name, folder) from None
        raise
