"""fedbench from Python: what `fedbench.run`, `compare`, `tune` and `load` are.

The commands call the same functions, so that neither can do what the other cannot.
"""
