"""The rate-distortion codec: low rank, trellis-coded levels, adaptive contexts.

tensor --views--> matrix --factors--> low rank + rest --levels--> planes --contexts--> rANS
"""
