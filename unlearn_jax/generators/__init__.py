"""Generators that are no diffusion: what they draw is data, and losses are exact."""
