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
    """Wait until `parent` is not this process's parent any more, then send it SIGTERM: the trainer ends after its step."""
    # An orphan is given to another parent. That is looked for, rather than whether `parent` exists: numbers are used again.
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the trainer with its own command line."""
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    from attfc_train.cli import main as train  # loading torch takes seconds, in which the parent may already end

    train()


if __name__ == "__main__":
    main()
