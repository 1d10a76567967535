"""The phases of a Cloud Native Buildpacks build, one module a phase."""
