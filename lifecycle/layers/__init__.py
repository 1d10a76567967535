"""Layers: what goes into them, their bytes, and how they come back to disk."""
