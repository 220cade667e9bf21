"""``python -m attfc_train``: the command line ``attfc-train``."""

from __future__ import annotations

from attfc_train.cli import main

main()
