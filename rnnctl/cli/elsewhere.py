"""Where an option belongs that a command was given and does not take."""

from typing import Any


def belongs_elsewhere(error: Any) -> str | None:
    """What to say of an unknown option that other commands have, such as --plot of forward; None of any other error."""
    name, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if name is None or context is None or context.parent is None:
        return None
    commands = context.parent.command.commands
    having = [each for each, command in commands.items() if any(name in option.opts for option in command.params)]
    if not having:
        return None
    taken = " and ".join(filter(None, (", ".join(having[:-1]), having[-1])))
    return f"No such option: {name}. {context.info_name} does not have it; {taken} {'have' if having[1:] else 'has'}"
