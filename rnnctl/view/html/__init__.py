"""A result as one file of HTML that needs nothing else, and as a small piece of it for a notebook.

Plain HTML, CSS and a script of our own (``report.css``, ``report.js``); no request to anywhere, and without the script
everything but exploring and copying is there. Columns, cells, notes and cuts are those of the terminal.

To read: ``page`` (the whole file) with ``verdict`` (what it says first) and ``parts`` (tables, scalars, findings,
commands); ``markup`` (tags, and the one function that escapes); ``charts`` (what each kind of result draws) with
``chart``, ``scale`` and ``svg``; ``matrix`` (norms as a picture of 8 bits) with ``png`` and ``still`` (its axes, and
what its colours say); ``notebook``.
"""
