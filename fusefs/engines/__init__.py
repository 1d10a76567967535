"""Engines: how requests of the kernel reach a `FileSystem`."""
