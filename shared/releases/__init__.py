"""Releases: the bundle, its lists, and the allocation that decides who sees which."""
