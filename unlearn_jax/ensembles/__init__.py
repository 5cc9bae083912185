"""Ensembles as data: trained piece by piece on disk, found again by whoever asks."""
