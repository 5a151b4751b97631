"""Models the night trains and exports, one a file."""
