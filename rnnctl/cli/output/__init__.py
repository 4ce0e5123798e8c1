"""From a result to a table, a file, a picture and an exit code."""
