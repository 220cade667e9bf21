"""Renders the characters of the installed fonts into training sets and verification pairs.

python -m benchmarks.glyphs --size 5k --out glyphs
attfc-train --data glyphs/5k --val glyphs/held-out.bin ...
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.glyphs.build import Settings, build
from benchmarks.glyphs.fonts import FOLDERS
from benchmarks.glyphs.split import SIZES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="5k", help="identities to train on; 70k is all there are")
    parser.add_argument("--out", type=Path, default=Path("glyphs"), help="folder of the set")
    parser.add_argument("--fonts", type=Path, action="append", help="folder of fonts instead of the system's; may be repeated")
    parser.add_argument("--polarity", choices=["dark", "mixed"], default="dark", help="mixed is much harder")
    parser.add_argument("--model", type=Path, help="folder of a run: also write pairs that its model confuses")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    settings = Settings(folders=options.fonts or FOLDERS, polarity=options.polarity)
    manifest = build(options.out, options.size, settings, options.processes, print, options.model)
    for name, part in manifest["parts"].items():
        print(f"{part['sha256']}  {options.out / name}")
    print(f"digest {manifest['digest']}")


if __name__ == "__main__":
    main()
