"""Looking at somebody's module: which parts of it recur, what they received and returned, what backward brought.

Here: whatever sets a hook or asks autograd's graph, and leaves the module as it was; and how a run of one layer comes
of it. Not here: the arithmetic of steps (``recurrence``), norms and verdicts (``gradients``, ``dynamics``), and the
files that models are read from (``files``).

To read, on the way from a module to its runs:

- ``modules`` (what recurs in it, of which kind, under which name) and ``hooks`` (how one looks on).
- ``recording`` (a training step looked at) and what it keeps: ``calls``, with ``arriving_gradients`` (what backward
  brought), ``lineage`` (which call made a state) and ``replay`` (the layers below the last one).
- ``sequences``: from one call to the runs of its layers and directions.
- ``objective`` (from an output to a loss) and ``readout`` (what the losses send to the states).
- other sources of a run: ``hand_written`` (our own network) and ``driven`` (a layer with its input, without a loss).

``torch_layers`` is none of these: the model that size flags build.
"""
