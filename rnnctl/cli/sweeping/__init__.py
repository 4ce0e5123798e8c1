"""A sweep of one of our questions: ``sweeps`` spreads runs over processes, ``asking`` makes one; here both meet.

Nothing here prints; ``commands.sweep`` does. To read: ``plan`` (settings and a grid -> runs with their keys),
``varied`` (what --vary says), ``making`` (who makes the runs), ``on_cluster`` and ``there`` (Dask's workers, from here
and from there), ``carried_out`` (a plan, its file and its workers -> the result), ``past`` (the result
of a file alone), ``sweep`` (the function of the library); of the command ``options``, ``requested`` (what is refused
before anything is made) and ``stopping``.
"""
