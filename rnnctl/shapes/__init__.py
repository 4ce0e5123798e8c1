"""The shape of every tensor, of our network and of anybody's.

Here: what a tensor is called, its axes in words, its range, and how much arithmetic it takes part in. Not here: what
is differentiated (``gradients``), how to look at somebody's module (``models``), tables of these rows (``view``).

To read: ``forward`` (one entry for any model), ``hand_written`` (one step and one sequence of our network),
``any_model`` (one run of a model, module by module), ``uses`` (how often it uses each parameter), and what the first
two are made of: ``tensors`` (records) and ``axes`` (gates, weights and states by name and axis).
"""
