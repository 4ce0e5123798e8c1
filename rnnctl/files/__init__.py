"""The only room that opens user files: it knows suffixes, paths, and whose code may run.

Here: bytes in and out, and what they must be before anything is made of them. Not here: what is computed with them
(``gradients``, ``dynamics``), flags and exit codes (``cli``), columns and colours (``view``).

To read: ``reading`` and ``writing`` (bytes, whole or not at all), ``containers`` with ``storage`` (tensors without
running a file's code), then by what is read:

- sequences: ``arrays``, ``table`` (CSV), ``preparing`` (standardized, split, fitted), ``bundled``.
- weights: ``checkpoints`` (a file to names and tensors), ``weights`` (those of an Elman layer), ``fit`` (the one check,
  and into a module).
- results: ``reports`` (what was written as JSON, read again).
- runs: ``jsonl`` (lines that grow, torn ends), ``runs`` (what ``rnnctl.watch`` writes).
- the user's own code: ``models``, and ``users_code`` for what it prints and raises.
"""
