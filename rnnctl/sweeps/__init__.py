"""One question over a grid of settings: which runs there are, how they are spread over processes, what is kept of them.

Nothing here knows what a question is: a run is a mapping of varied settings, and whoever asks says how it is made.
torch is not needed. Not here: the questions and their options (``cli.sweeping`` puts both together, for the command
and for ``rnnctl.sweep``), and how a result looks (``view``).

To read: ``grid`` (which runs there are), ``run_file`` (the line of each), ``runner`` (who makes them, and what becomes
of the lost ones), ``workers`` (processes of our own) and ``cluster`` (those of Dask); ``result`` (what a grid says).
"""
