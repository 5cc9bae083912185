"""What studies of sequences share: who takes part, what is tried, how it is chosen."""
