"""The run directory: what a run leaves on disk, written whole and read back checked."""
