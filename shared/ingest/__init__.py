"""Ingest: the lake's rows, files and manifest, the folding of the broker log, and the exposure files."""
