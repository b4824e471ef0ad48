"""Studies: a grid of runs, carried out, read back, and compared."""

PARENT = "FEDBENCH_PARENT"
"""Environment variable with the id of a process that a run must not outlive."""
