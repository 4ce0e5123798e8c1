"""The arithmetic of one layer over time, forward and in reverse: tensors in, tensors out.

Here: what one step of a cell is, what happened in one layer, and the sweeps back through it. Not here: whose module
it was and how to look into it (``models``), and what is asked of a sweep (``gradients``, ``dynamics``).

Three nouns, each made of the one before: a kind (what one step is), a run (what happened), a question (what it
teaches). To read:

- the kind: ``cell_kind`` (the record that every kind fills in), ``kinds`` (those that there are), ``weights`` and
  ``nonlinearities`` (what they are made of), then the kinds themselves: ``elman``, ``gru``, ``lstm`` with
  ``cell_steps`` (what all cells with a c have in common), and ``fused`` (forward, by torch's own functions).
- the run: ``run``.
- the engine of the questions: ``sweep`` (back through all steps, for one loss), ``sweep_all_losses`` (for all losses
  at once), ``slopes`` (what every question about one step needs of it).
- beside them: ``scaling`` (powers of two), ``threads``, ``matrix`` (what W_hh tells without a run) with
  ``radius_error`` and ``resolvent`` (how well its spectral radius is known), ``finite``.
"""
