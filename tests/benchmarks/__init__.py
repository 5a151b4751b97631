"""Measurements: each prints JSON, and `check` holds what can be compared between machines against a committed value."""
