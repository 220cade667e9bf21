"""``python -m attfc_planner``: the command line ``attfc-plan``."""

from __future__ import annotations

from attfc_planner.cli import main

main()
