"""Entropy coders: from integers below a known alphabet to bytes and back, one file each."""
