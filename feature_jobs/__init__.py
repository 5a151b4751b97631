"""Events to feature values: the backfill of state, the training set, the parity check."""
