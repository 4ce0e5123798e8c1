"""Small set-ups with a known fault, and healthy ones, by which ``rnnctl doctor`` is scored.

Read first ``setups`` (what a set-up is), then ``healthy`` and ``faulty`` (which there are; drawn from ``tasks`` and
``networks``). ``learning`` measures that each fault is one: the network learns worse than its healthy twin.
``score`` holds the doctor against all of them.
"""
