"""The command line: parse, ask the library one question, hand the result to a view.

What stands here: options, exit codes, streams, and the way from options to an experiment. What does not: arithmetic
(``gradients``, ``dynamics``, ``shapes``), file formats (``files``), tables and pictures (``view``).

A command line on its way: ``app`` finds the command; ``options`` parse; ``setup`` makes an experiment of them;
``commands`` asks its question; ``output`` shows the result and judges it. Read in that order; ``streams`` and
``exits`` are short and belong to all of them. Torch is imported in ``setup/experiment`` and what it needs, never
on the way to the help, completion, the version or a usage error; ``loading`` is how.
"""
