"""The HTTP API: one module a resource, one error shape."""
