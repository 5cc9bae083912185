"""From a model and data to trained variables."""
