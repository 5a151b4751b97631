"""Erasing a user: the fan-out, its receipts, and what is looked after until they are whole."""
