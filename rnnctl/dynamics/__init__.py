"""What the recurrent weights do to a state, whatever the loss: eigenvalues, step Jacobians, exponents.

All of it in float64 on the CPU; code of the user's own is differentiated in its own dtype. Here: W_hh alone, and the
Jacobians of its steps along an input. Not here: gradients of a loss (``gradients``, one number of which ``lyapunov``
shows beside its own), how a step is differentiated (``recurrence``; ``models.graph_steps`` where no class says it), and
which layer of a model is meant (``models.driven``).

To read: ``trajectory`` (states and slopes along an input, a stretch at a time); ``spectrum`` with ``eigen`` (one
matrix), ``transient`` (its powers) and ``jacobian`` (norms of many at once), ``gate_spectra`` (the same, gate by
gate) and ``step_spectra`` (of code of the user's own, step by step); ``lyapunov`` with ``growth`` (of perturbations,
step by step), ``standard_error`` and ``copies`` (how sure their means are); what theory predicts: ``meanfield``,
``followed_drive`` with ``finite_width``, and ``gated_mean_field``; ``checkpoint`` (the matrices of a file, without
their model).
"""
