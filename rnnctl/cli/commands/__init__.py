"""The commands: each parses, calls one function of the library, and hands over what it returned."""
