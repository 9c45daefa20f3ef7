from __future__ import annotations

import sys
from pathlib import Path

# Where deploy/check.py can be imported from.
sys.path.insert(0, str(Path(__file__).parents[3] / "deploy"))
