"""The engine: a run, round by round; its evaluation, repetition and times."""
