"""`python -m ocistow.cli`: the program without its installed script."""

from __future__ import annotations

from .main import main

main()
