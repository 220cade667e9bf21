"""Versions of the packages that predictions and measurements depend on, read without importing any of them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version


def installed_version(package: str) -> str | None:
    """Return a package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str]:
    """Return the versions that a prediction depends on, by package; ``unknown`` for what is not installed."""
    return {package: installed_version(package) or "unknown" for package in ("attfc", "torch")}


def cudnn_version() -> str:
    """Return the version of the cuDNN package that torch depends on; ``torch's own`` where there is none.

    torch itself, which knows any other cuDNN, takes seconds to import.
    """
    for requirement in requires("torch") or ():
        name = re.match(r"nvidia-cudnn[\w-]*", requirement)
        installed = installed_version(name.group()) if name else None
        if installed is not None:
            return installed
    return "torch's own"
