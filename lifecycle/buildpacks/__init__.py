"""Buildpacks: which are tried, how they are run, and what they leave."""
