"""Codecs for model updates: NumPy, numba and zstandard; no torch, no Flower, no gRPC."""
