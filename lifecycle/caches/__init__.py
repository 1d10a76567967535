"""Caches: what a later build starts from, in a directory or in an image."""
