"""The files by which platforms, phases and buildpacks speak to each other, one module each."""
