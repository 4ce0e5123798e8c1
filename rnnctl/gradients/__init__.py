"""What the reverse sweep teaches about gradients through time: questions, each of any model.

Here: what every time step contributes to dL/dW_hh, how far back losses reach, and what autograd says of the sums.
Not here: steps and sweeps (``recurrence``), looking into modules (``models``), what no loss takes part in
(``dynamics``), tables and pictures (``view``).

To read:

- one loss: ``gradnorm``, on ``layer_sweep`` (one run swept back), ``entering`` (what the loss sends to it),
  ``contributions`` (norms and sum of all G_t), ``decay`` and ``verdict`` (what the norms say of the past).
- the same of somebody's training step: ``probe``, on ``layer_calls`` and ``cell_calls`` (from what was recorded to
  norms), or on ``layer_readings`` where torch unrolls a large layer itself; ``model_gradnorm`` makes one result of it,
  ``watch`` and ``history`` a course of training.
- of weights that are found in the graph: ``tape_recording``, on ``use_norms`` and ``norm_book`` (what passes by) and
  ``use_steps`` (norms by step); ``outside`` (what comes to a known cell's states past its later calls).
- all losses: ``flow`` and ``truncation``, on ``loss_steps`` (one sweep for all of them), which ``loss_layout`` lays
  out for anybody's model; where that cannot be, ``loss_passes`` (one backward pass for each).
- what is not finite: ``in_float64`` runs it once more there (a ``training_step``, or the hand-written network).
- ``agreement``: all sums are held against autograd's own gradient.
"""
