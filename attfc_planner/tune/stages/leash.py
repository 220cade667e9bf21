"""``python -m attfc_planner.tune.stages.leash``: the trainer, which stops when the process that started it is gone.

A worker that is killed cannot stop its training; without this the training would hold the GPU while the next worker tunes.
"""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_SECONDS = 1.0


def follow(parent: int) -> None:
    """Sends this process SIGTERM, which the trainer obeys between two steps, once `parent` is not its parent any more."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """The trainer's own command line."""
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    from attfc_train.cli import main as train

    train()


if __name__ == "__main__":
    main()
