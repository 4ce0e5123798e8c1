"""Why a recurrent network does not learn: what is found in it, ranked by evidence, and what would help.

Here: the rules, what each of them looks at, the order in which their findings are told, and remedies that are tried on
copies and measured. Not here: the questions that they ask (``gradients``, ``dynamics``), how W_hh is drawn
(``initializers``), and how a diagnosis is shown (``view``).

To read:

- ``look`` (what a rule and its answer are), ``rules`` (the table of all; ``rule_ids`` has their names without torch),
  ``doctor`` (asks all of them) and ``result`` (a diagnosis).
- ``case`` (a model with all that it is trained with) and ``patient`` (one that is looked at, and what several rules ask
  of it, each made once): ``watched_pass`` (one forward pass, with ``activations`` of loops written by hand),
  ``last_loss`` (how far back the loss of the last step reaches) and ``lag`` (how far back the task does).
- the looks, by subject: ``inputs``, ``losses`` (with ``blank_ends``: padding that nobody spoke of), ``crossing`` (what
  gradient crosses from step to step), ``gradients``, ``states`` and ``trainings``.
- ``training`` (of a copy, a few steps) with ``adam`` and ``windows`` (which cut the state); ``reach`` (how much of a
  gradient is left over a lag); ``remedies`` (the table, tried and ranked), which takes from ``weight_remedies``,
  ``found_weights`` and ``setup_remedies`` what each of them changes.
"""
