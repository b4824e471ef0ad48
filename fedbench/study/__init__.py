"""Studies: a grid of runs, carried out, read back, and compared."""

PARENT = "FEDBENCH_PARENT"
"""Environment variable with the id of the process that a run must not outlive."""

TEMPORARY = 75
"""Exit status of a command that the machine stopped: ``EX_TEMPFAIL`` of sysexits.h."""
