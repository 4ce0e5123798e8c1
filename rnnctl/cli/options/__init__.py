"""Every option, declared once.

Groups of options, by what they are about: ``model``, ``data``, ``loss``, ``question`` (of single commands), ``run``,
``output``. A new option is one more field of a group, declared by ``flags``, with a case in the tests that it changes.

``command`` makes what typer reads of a command's groups; ``config`` takes values from a TOML file, ``mapping`` from a
plain mapping, for a process without a command line; ``numbers`` reads numbers for all of them; ``completing`` is what a
shell is told.

What does not stand here: what options mean together (``setup/request``). No torch. Read ``flags``, ``model``,
``command``, ``config``, ``mapping``.
"""
