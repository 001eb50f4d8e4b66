"""Where prepared data lies."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where prepared data lies: ``$ISTHMUS_CACHE``, or ``~/.cache/isthmus``."""
    return Path(os.environ.get("ISTHMUS_CACHE") or Path.home() / ".cache" / "isthmus")
