"""Pages for a shopper: read her, rank, show, explain, record."""
