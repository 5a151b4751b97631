"""The catalogue over HTTP: written as events, read from the live item table."""
