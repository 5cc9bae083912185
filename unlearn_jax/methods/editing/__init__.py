"""Closed-form edits of bias-free linear maps: ridge regression around the old maps."""
