"""Result -> table, JSON, JSONL, CSV, picture; no arithmetic beyond formatting.

Here: titles, columns, colours, number formats. Not here: what a number is (``results`` and the rooms that compute),
and where the text goes (``cli.output``).

To read: ``render`` (one result in any form) with ``terminal`` (what is wanted, and where it goes), ``machine`` (JSON,
JSONL, CSV), ``layouts`` (what each kind of result looks like, as data), ``tables`` (a layout drawn), ``numbers``;
then the pictures: ``heatmap`` and ``plane`` of characters, ``figures`` of matplotlib; and ``guide``, its chapters on a
terminal.
"""
