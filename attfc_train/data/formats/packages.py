"""Packages that only some formats need: loaded when they are, with the command that installs them where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from attfc_train.errors import UsageError


def needed(module: str, extra: str) -> ModuleType:
    """Return a module of an optional package.

    Args:
        module: ``pyarrow.parquet``.
        extra: the name in brackets that installs it: ``pip install 'attfc[parquet]'``.

    Raises:
        UsageError: it is not installed, or cannot be loaded.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule = f"this data set needs the package {package}"
        got = "none that is installed" if isinstance(error, ModuleNotFoundError) else f"'{error}' where it is loaded"
        raise UsageError(rule, got, f"pip install 'attfc[{extra}]'") from error
