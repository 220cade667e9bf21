"""Power cuts: what the disk would hold, at every border of a run, if only what was flushed were certain to be there.

A file that was not flushed since it was written may be empty, torn, full of zeros or whole; a name that was given or taken away
since the folder was flushed may or may not have changed. A run is recorded once with both; of each border some of the possible
disks are made, the run goes on there, and must end with the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from attfc_train.run.checkpoint import earlier_name
from benchmarks.attack.kills import Killer
from benchmarks.attack.outcome import Outcome
from benchmarks.attack.trainings import content, go_on, profile_file, removed, start, start_arguments, wait

_PER_BORDER: Final = 3
_SPARE: Final = earlier_name(1)
"""The checkpoint before the last: its name may be lost together with the cut, after which nobody needs it."""
State = dict[str, str]
"""Name of a file -> name of its content in the store."""


class Recorder:
    """Records, in the process of a run, the disks that a power cut could leave.

    Args:
        run: the run folder.
        store: receives contents, each once, and the list of states.
        random: draws what is lost.
    """

    def __init__(self, run: Path, store: Path, random: Random) -> None:
        self.run = run
        self.store = store
        self.random = random
        self.flushed: dict[int, bytes] = {}
        """Inode -> content at its last flush."""
        self.names: dict[str, int] = {}
        """The folder at its last flush."""
        self.states: list[tuple[str, State]] = []
        self._seen: set[str] = set()
        self._link = os.link  # as it is before this process is watched
        (store / "pins").mkdir(parents=True)

    def arm(self) -> None:
        """Watch this process: each border is recorded before it and behind it."""
        killer = Killer(None)
        killer.arm()
        passes = killer.passes

        def recorded(function: Callable[[], Any], before: Callable[[], object] = lambda: None) -> Any:
            self.record(f"before border {killer.borders}")
            result = passes(function, before)
            self.record(f"behind border {killer.borders - 1}")
            return result

        killer.passes = recorded  # type: ignore[method-assign]  # this killer records instead
        flush = os.fsync

        def noted(descriptor: Any) -> None:
            flush(descriptor)
            self._note_flush(descriptor)

        setattr(os, "fsync", noted)  # noqa: B010  # its type in typeshed has more forms

    def _note_flush(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            self.flushed[status.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        elif self.run.is_dir() and os.path.samestat(status, self.run.stat()):
            self.names = {name: inode for name, inode, _ in self._present()}

    def _present(self) -> list[tuple[str, int, Path]]:
        """Return what the folder holds; each inode is kept by a second name, so that its number is not used again."""
        present = []
        for path in sorted(self.run.iterdir()) if self.run.is_dir() else ():
            if path.is_file() and path.name != ".lock":
                inode = path.stat().st_ino
                pin = self.store / "pins" / str(inode)
                if not pin.exists():
                    self._link(path, pin)
                present.append((path.name, inode, path))
        return present

    def record(self, where: str) -> None:
        """Write some of the disks that are possible now."""
        present = {name: inode for name, inode, _ in self._present()}
        for _ in range(_PER_BORDER):
            names = self.random.choice(("all", "none", "some"))
            data = self.random.choice(("empty", "torn", "zeros", "whole"))
            kept = {"all": present, "none": self.names, "some": self._some(present)}[names]
            state = {name: self._stored(self._content(inode, data)) for name, inode in kept.items()}
            key = json.dumps(state, sort_keys=True)
            if key not in self._seen:
                self._seen.add(key)
                self.states.append((f"{where}, {names} names, {data} data", state))
                (self.store / "states.json").write_text(json.dumps(self.states))

    def _some(self, present: dict[str, int]) -> dict[str, int]:
        """Return each name as it is now or as it was when the folder was flushed."""
        chosen = {name: self.random.choice((present, self.names)).get(name) for name in sorted({*present, *self.names})}
        return {name: inode for name, inode in chosen.items() if inode is not None}

    def _content(self, inode: int, data: str) -> bytes:
        now = (self.store / "pins" / str(inode)).read_bytes()
        former = self.flushed.get(inode, b"")
        if now == former or data == "whole":
            return now
        kept = former if now.startswith(former) else b""
        new = now[len(kept) :]
        return kept + {"empty": b"", "torn": new[: len(new) // 2], "zeros": bytes(len(new))}[data]

    def _stored(self, bytes_: bytes) -> str:
        name = hashlib.sha256(bytes_).hexdigest()[:24]
        path = self.store / name
        if not path.exists():
            path.write_bytes(bytes_)
        return name


class PowerCuts:
    """The disks of one recorded run.

    Args:
        whole: folder of the undisturbed run.
        folder: for the runs.
    """

    def __init__(self, whole: Path, folder: Path, seed: int, wanted: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.expected = content(whole)
        self.profile = profile_file(folder)
        self.store = folder / "store"
        run = folder / "recorded"
        recorder = Recorder(run, self.store, Random(f"{seed}/power"))
        ended = wait(start(start_arguments(self.profile, run), folder / "recorded.out", recorder.arm))
        if ended is None or ended.code != 0:
            raise RuntimeError(f"the recorded run failed: {ended}")
        removed(run)
        removed(self.store / "pins")
        states: list[tuple[str, State]] = json.loads((self.store / "states.json").read_text())
        Random(f"{seed}/power cuts").shuffle(states)
        self.cases = states[:wanted]

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """Lay out a disk and go on with the run there."""
        where, state = self.cases[number]
        folder = self.folder / f"run{number}"
        folder.mkdir()
        for name, stored in state.items():
            (folder / name).write_bytes((self.store / stored).read_bytes())
        outcome = go_on(self.profile, folder, self.folder / f"run{number}.out", self.expected, _SPARE)
        removed(folder)
        return where, outcome
