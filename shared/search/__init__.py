"""Full-text search of the catalogue: a nightly SQLite FTS5 index, live changes over it, typos, facets, cursors."""
