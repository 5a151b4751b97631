"""Releases in a worker: which are served, loaded with their items, and moved by operators."""
