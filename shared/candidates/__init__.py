"""Retrieval: small candidate sources, each a pure function of a query, and their union."""
