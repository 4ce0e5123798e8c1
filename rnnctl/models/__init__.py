"""Looking at somebody's module: which parts of it recur, what they received and returned, what backward brought.

Here: whatever sets a hook or asks autograd's graph, and leaves the module as it was; and how a run of one layer comes
of it. Not here: the arithmetic of steps (``recurrence``), norms and verdicts (``gradients``, ``dynamics``), and the
files that models are read from (``files``).

To read, on the way from a module to its runs:

- ``modules`` (what recurs in it, of which kind, under which name) and ``hooks`` (how one looks on).
- ``recording`` (a training step looked at) and what it keeps: ``calls``, with ``arriving_gradients`` (what backward
  brought), ``lineage`` (which call made a state) and ``replay`` (the layers below the last one).
- ``tape`` (autograd's graph: uses of a weight, steps, states), ``module_calls`` (when modules were called) and
  ``weight_uses`` (what a graph says of a model's weights): what recurs although no class says so. ``forwards`` looks
  on where no hook comes by.
- ``sequences``: from one call to the runs of its layers and directions; ``unrolled``: where their steps are in the
  graph, if torch ran them one by one.
- ``model_run`` (one call of it) and ``room`` (whether its layers fit into memory, asked before they run).
- ``inputs`` (what a model is called with) and ``misfit`` (why it did not take that).
- ``objective`` (from an output to a loss) and ``readout`` (what the losses send to the states).
- ``parameter_uses`` (one forward pass, counted; ``layer_runs`` of torch's layers) and ``loops`` (its steps, in
  ``loop_steps``'s words; ``graph_loops`` and ``around`` read them off the graph).
- other sources of a run: ``hand_written`` (our own network; ``in_torch`` tells whether torch has its recurrence) and
  ``driven`` (a layer with its input, without a loss); where the graph alone shows a weight ``graph_steps`` (its
  steps, the states between them, the Jacobian of each), with ``made_tensors`` (the numbers of those states).

``torch_layers`` is none of these: the model that size flags build.
"""
