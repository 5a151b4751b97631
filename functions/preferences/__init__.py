"""What shoppers asked for: set as events, obeyed from the acknowledgement on."""
