"""Adapters: Redis, the broker logs and the blob stores behind the ports of the core."""
