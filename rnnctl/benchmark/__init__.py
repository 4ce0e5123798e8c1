"""What the inspection costs on this machine, always as a ratio within one run.

Here: the methods that are compared, the clock, and one report. Not here: whatever is measured (``gradients``), and
the sizes that a user gives (``cli.setup.workloads``).

To read: ``timing`` (medians of interleaved runs), ``machine`` (where they ran), ``report`` (a set of cases, what its
rows and targets are, the loop over the workloads), then the sets: ``gradnorm`` with its ``methods`` and ``peak``
(memory), ``flow``, ``probe``, and ``sweep`` with its ``idle`` runs, which has no workloads. ``comparison`` holds a
report against one that was saved.
"""
