"""Programs that stand beside this file, and do what one does without a store."""

from __future__ import annotations

import sys
from pathlib import Path

COMPRESS = (sys.executable, str(Path(__file__).with_name("compress.py")))
PLAIN = (sys.executable, str(Path(__file__).with_name("plain.py")))
