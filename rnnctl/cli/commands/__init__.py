"""One file a command: the groups of options that it takes, and its question.

Every command is a function of one ``...Options``, a dataclass of option groups in the order of the help's panels.
It takes an experiment from ``prepared``, asks one function of the library within ``running()``, and shows the result:
no tensor arithmetic, and no difference between the hand-written network and any other.

What does not stand here: flags (``options``), how networks and data are made (``setup``), formats (``output``).
Read ``flow`` first, then ``gradnorm`` with ``history`` (--from), and ``bench``, which has experiments of its own.
"""
