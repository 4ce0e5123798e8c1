"""Looking at somebody's module: which parts of it recur, what they received and returned, what backward brought."""
