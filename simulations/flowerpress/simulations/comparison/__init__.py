"""Several runs of one task side by side: planned, run in processes, and reported together."""
