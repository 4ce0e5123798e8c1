"""Result -> table, JSON, JSONL, CSV, picture; no arithmetic beyond formatting.

Here: titles, columns, colours, number formats. Not here: what a number is (``results`` and the rooms that compute),
and where the text goes (``cli.output``).

To read: ``render`` (one result in any form) with ``terminal`` (what is wanted, and where it goes), ``machine`` (JSON,
JSONL, CSV), ``layouts`` (what each kind of result looks like, as data), ``blocks`` (its cells as text), ``tables``
(drawn) with ``fitting`` (which columns a window has room for) and ``scalars`` (with their notes), ``numbers``;
``words`` (what every word of the output means, read from ``guide/words.toml``) with ``explanation`` (one of them, or
the list); ``guide`` (its chapters on a terminal) and ``help_page``; then the pictures: ``heatmap``, ``line_chart``
(both by ``scale``) and ``plane`` of characters, ``figures`` of matplotlib; ``grid_axes`` says what either makes of a
sweep; ``html`` (a page, and a piece for a notebook) and ``shown`` (what a notebook asks of every result).
"""
