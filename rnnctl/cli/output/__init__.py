"""From a result to a table, a file, a picture and an exit code.

``emit`` renders a result, writes it to stdout or a file and judges it; ``conditions`` are what --fail-on says of it;
``plotting`` draws. Each refuses before anything is computed what it could not do afterwards. Read in that order.

What does not stand here: how a table or a picture looks (``view``), how a file is written whole (``files``).
"""
