"""The run directory: what a run leaves on disk, written atomically and checked when read."""
