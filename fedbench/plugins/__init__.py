"""Plugins: what is installed, what it must be like, and the hooks of one run."""
