"""Scoring and ordering of the candidates of one request."""
