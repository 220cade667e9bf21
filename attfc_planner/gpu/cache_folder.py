"""The folder for what is slow to find out again: `$ATTFC_CACHE_DIR`, else `~/.cache/attfc`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder, which may not exist yet."""
    chosen = os.environ.get("ATTFC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attfc"
