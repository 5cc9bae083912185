"""Fine-tuning that takes a concept away from a denoiser."""
