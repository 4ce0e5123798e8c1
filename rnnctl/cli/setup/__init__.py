"""From options to an experiment: a network, a batch, and the configuration that they came from.

- ``request``: what of a command's options shapes an experiment, and which of them clash; without torch.
- ``foreseen``: what cannot end well whatever the numbers are: limits, missing files and modules; without torch.
- ``experiment``: the one way from options to an ``Experiment``, pure, so that a worker process can take it.
- ``batch``, ``sizes``, ``network``: its parts, in this order: what files hold, the sizes that follow, the network.
- ``process``: torch's threads and random numbers, borrowed and put back.
- ``prepared``: an experiment for a command. It alone prints and writes.
- ``workloads``: what ``bench`` measures.

What does not stand here: reading a format (``files``), looking into a model (``models``), any question about it.
"""
