"""Diffusion: schedules, noise as data, training, and samplers."""
