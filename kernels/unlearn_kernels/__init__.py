"""Faster arithmetic behind one function per operation; imports jax only."""

__all__ = ["convolution"]
