"""Runs the tests on the stand-in device with CUDA builds of torch: `python tests/standin/run.py [--reduced] [VERSION ...]`.

Each version has an environment of its own in `.standin/`, made when it is missing (5.5 GB), and libraries built for it. The
first version runs everything, the others what differs by torch: the allocator, memory, and the device's tests. With
``--reduced`` nothing is made: the first environment that is there is taken, or it is said that there is none, and the whole
commands are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERSIONS = ("2.14.1", "2.13.0")
FOLDER = Path(os.environ.get("ATTFC_STANDIN", ROOT / ".standin"))
DEVICE = ("tests/gpu", "tests/standin/test_allocator.py", "tests/standin/test_memory.py")
REDUCED = (*DEVICE, "-m", "not slow")
PLAIN_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
"""Against a pip that is set up to prefer a CPU build."""


def python_of(version: str) -> Path:
    """Return the environment's interpreter."""
    return FOLDER / version / "bin/python"


def has_cuda(version: str) -> bool:
    """Return whether an environment is there, with a CUDA build of this torch."""
    question = f"import torch; raise SystemExit(not (torch.version.cuda and torch.__version__.startswith('{version}')))"
    python = python_of(version)
    return python.exists() and subprocess.run([python, "-c", question], capture_output=True, check=False).returncode == 0


def make(version: str) -> bool:
    """Make an environment; return whether its torch is a CUDA build, which not every pip has."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER / version], check=True)
    for settings in ({}, PLAIN_INDEX):
        install = [python_of(version), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--force-reinstall"]
        environment = {**os.environ, **settings}
        done = subprocess.run([*install, f"torch=={version}", "triton"], env=environment, check=False)
        if done.returncode == 0 and has_cuda(version):
            subprocess.run([*install[:-1], f"torch=={version}", "-e", f"{ROOT}[dev,log]"], env=environment, check=True)
            return has_cuda(version)
    return False


def test(version: str, places: tuple[str, ...]) -> int:
    """Build the libraries where they are older than their sources, and run tests on them."""
    library = FOLDER / version / "standin"
    sources = max(path.stat().st_mtime for path in HERE.iterdir() if path.suffix in (".c", ".h") or path.name == "build.py")
    if not library.exists() or library.stat().st_mtime < sources:
        subprocess.run([python_of(version), HERE / "build.py", "--out", library], check=True)
        os.utime(library)
    environment = {**os.environ, "FAKEGPU_LIB": str(library), "PYTHONPATH": str(ROOT)}
    command = [HERE / "fakegpu", python_of(version), "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *places]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """Return 0 where all tests of all versions passed; where there is none, only ``--reduced`` is content."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("--reduced", action="store_true")
    options = parser.parse_args()
    begin = time.monotonic()
    present = [version for version in options.versions if has_cuda(version) or (not options.reduced and make(version))]
    for version in options.versions:
        if version not in present:
            print(f"stand-in device: no environment with a CUDA build of torch {version} in {FOLDER}: its tests are not run")
    codes = []
    for number, version in enumerate(present[:1] if options.reduced else present):
        whole = number == 0 and not options.reduced
        codes.append(test(version, REDUCED if options.reduced else ("tests/gpu", "tests/standin") if whole else DEVICE))
        print(f"stand-in device, torch {version}: exit code {codes[-1]} after {time.monotonic() - begin:.0f} s in all")
    if not present:
        return 0 if options.reduced else 1
    return int(any(codes))


if __name__ == "__main__":
    raise SystemExit(main())
