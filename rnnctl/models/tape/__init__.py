"""One forward pass as autograd has it: uses of a weight, the steps that they make up, the state between two steps.

Nothing here knows a class of module: it reads nodes and edges. Read in this order: ``block`` (whose passes are looked
at, among threads), ``passes`` (when there is a graph to read), ``operations`` (what a node does with its inputs),
``graph`` (all nodes, in order), ``uses`` (where weights enter), ``steps`` (which uses are one step, and which steps
follow one another), ``states`` (what a step hands to the next), ``pull_back`` (a gradient from a use to its weight).
What becomes of it stands in ``gradients``.
"""
