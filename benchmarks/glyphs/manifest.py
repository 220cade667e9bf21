"""The manifest of a set: what it is made of, which parts are there, and their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attfc_train.files import write_text_atomically

Document = dict[str, Any]


class Manifest:
    """``manifest.json`` in the folder of a set; written after each part, so that work that was stopped goes on."""

    def __init__(self, out: Path, source: Mapping[str, Any]) -> None:
        """Open the manifest of a folder, or begin one.

        Args:
            out: the folder of the set.
            source: all that decides what the set is.

        Raises:
            SystemExit: the folder holds a set of another source; parts of two would mix held-out and trained identities.
        """
        self._path = out / "manifest.json"
        self.document: Document = {"digest": "", "source": source, "parts": {}}
        if not self._path.exists():
            return
        former: Document = json.loads(self._path.read_text())
        if former["source"] != json.loads(json.dumps(source)):
            changed = ", ".join(key for key, value in source.items() if former["source"].get(key) != value)
            raise SystemExit(
                f"'{out}' must hold one set, got one that was made with other {changed or 'settings'}: "
                "give another folder as --out, or remove this one"
            )
        self.document = former

    def has(self, name: str, path: Path) -> bool:
        """Return whether a part was finished, and its file still has its size."""
        size = self.document["parts"].get(name, {}).get("bytes")
        return size is not None and path.is_file() and path.stat().st_size == size

    def forget(self, name: str) -> None:
        """Have a part made again."""
        self.document["parts"].pop(name, None)

    def add(self, name: str, figures: Mapping[str, Any]) -> None:
        """Write down a finished part; `digest` is that of the digests of all parts."""
        parts = self.document["parts"]
        parts[name] = dict(figures)
        digests = "".join(f"{part} {parts[part]['sha256']}\n" for part in sorted(parts))
        self.document["digest"] = hashlib.sha256(digests.encode()).hexdigest()
        self.save()

    def save(self) -> None:
        """Write the document."""
        write_text_atomically(self._path, json.dumps(self.document, indent=1, ensure_ascii=False) + "\n")


def file_sha256(path: Path) -> str:
    """Return the digest of a file's content, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
