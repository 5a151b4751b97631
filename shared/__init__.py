"""The core: what at least two of functions, feature_jobs and batch use, plus ports and their adapters."""
