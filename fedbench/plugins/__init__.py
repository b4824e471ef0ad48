"""Plugins: which ones are installed, the rules that they must keep, and the hooks of one run."""
