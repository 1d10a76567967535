"""Garbage collection: what nothing mentions, nobody leased, and nothing touched lately."""
