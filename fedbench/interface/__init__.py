"""fedbench from Python: what `fedbench.run`, `fedbench.compare` and `fedbench.load` are.

The commands call the same functions, so that neither can do what the other cannot.
"""
