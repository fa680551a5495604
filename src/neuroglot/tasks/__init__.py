"""Parallel tasks: the catalogue, the user's own, and the embedded ones."""
