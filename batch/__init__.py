"""The nightly deployable: one module a stage."""
