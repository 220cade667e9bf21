"""Installs the Debian packages whose fonts make the set: python -m benchmarks.glyphs.packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

PACKAGES: Final = (Path(__file__).parent / "packages.txt").read_text().split()
"""Free fonts with Han characters: serif, sans-serif, brush, pen, bitmap; of China, Taiwan, Japan and Korea."""

Say = Callable[[str], object]


def install(packages: Sequence[str], say: Say) -> None:
    """Install the packages that are not there; say which ones could not be, and why."""
    missing = [name for name in packages if not _is_installed(name)]
    if not missing:
        say(f"all {len(packages)} font packages are installed")
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        say(f"only root can install packages, and with apt-get; the set is made without {len(missing)} font packages.")
        say(f"To install them: sudo apt-get install --no-install-recommends {' '.join(missing)}")
        return
    _run("apt-get", "update", "-qq")
    offered = [name for name in missing if _run("apt-cache", "show", "--no-all-versions", name)]
    # One command is quick. Where one package stops it, the others are installed one by one.
    if offered and not _install(offered):
        for name in offered:
            _install([name])
    failed = [name for name in missing if not _is_installed(name)]
    say(f"{len(missing) - len(failed)} font packages were installed")
    if failed:
        say(f"the set is made without {len(failed)} packages that could not be installed: {' '.join(failed)}")


def _is_installed(name: str) -> bool:
    return "install ok installed" in _output("dpkg-query", "--show", "--showformat=${Status}", name)


def _install(names: Sequence[str]) -> bool:
    return _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *names)


def _run(*command: str) -> bool:
    """Return whether a command succeeds; what it prints is dropped."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def _output(*command: str) -> str:
    """Return what a command prints, or nothing where it is not there."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    install(PACKAGES, print)
