"""Search over a release's index and what changed since."""
