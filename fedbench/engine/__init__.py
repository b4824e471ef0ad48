"""The engine plays a run round by round, evaluates it, repeats it to verify it, and times it."""
