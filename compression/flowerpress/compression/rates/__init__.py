"""Rates per layer: how many bytes each tensor of an update gets."""
