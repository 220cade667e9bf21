"""Jobs done by several processes at a time, all of them forks of a server that has loaded the recorder and traced nothing.

Forks, because loading torch takes seconds. Not forks of the caller: a CUDA build of torch refuses backward passes in a fork of
a process that has made one. And not of one of multiprocessing's servers, whose children run the caller's script anew: a script
without a main guard would start itself without end.

The server reads requests from stdin, a pickle each: how many processes, and the jobs, which are pickles themselves. It answers
with every job's place and pickled result, in the order in which they end; None stands for a job that could not be done there.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress

from attfc_planner.trace.jobs import Job, Result, pickled_result, result
from attfc_planner.trace.record import load
from attfc_train.processes import command, follow

MOST_WORKERS = 4
IDLE_SECONDS = 60.0
"""Time after which a server without work ends: it holds 350 MiB, which a training on this machine can use better."""


class Server:
    """A server's process, as its caller sees it."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command("attfc_planner.trace.workers"), stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._answers = self._process.stdout

    @property
    def serves(self) -> bool:
        """Return whether it runs, for this process and not for one that this process is a fork of."""
        return self._owner == os.getpid() and self._process.poll() is None

    def answers(self, num_workers: int, jobs: list[bytes]) -> Iterator[tuple[int, bytes | None]]:
        """Yield the place of each job, in the order in which they end, and its pickled result.

        Raises:
            OSError, EOFError, pickle.UnpicklingError: the server has ended.
        """
        pickle.dump((num_workers, jobs), self._requests)
        self._requests.flush()
        for _ in jobs:
            yield pickle.load(self._answers)

    def end(self) -> None:
        """End the process, whatever it does; its workers follow it."""
        if self._owner != os.getpid():
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(BrokenPipeError):  # a request that the server did not live to read
                pipe.close()


_server: Server | None = None
_lock = threading.Lock()


def results(jobs: Sequence[Job], finished: Callable[[Job], object] = lambda _: None) -> list[Result]:
    """Return the jobs' results in order; what no worker could do is done here, where its error comes up again.

    Args:
        finished: is told of each job that is done.
    """
    answers = _answers(jobs, finished) if jobs and sys.platform.startswith("linux") else {}
    return [pickle.loads(answers[place]) if place in answers else _here(job, finished) for place, job in enumerate(jobs)]


def _here(job: Job, finished: Callable[[Job], object]) -> Result:
    made = result(job)
    finished(job)
    return made


def _answers(jobs: Sequence[Job], finished: Callable[[Job], object]) -> dict[int, bytes]:
    """Ask the server, which is started where there is none; return place -> pickled result of what it could do."""
    global _server
    answers: dict[int, bytes] = {}
    num_workers = min(len(jobs), os.cpu_count() or 1, MOST_WORKERS)
    with _lock:
        if _server is None or not _server.serves:
            end()
            _server = Server()
        try:
            for place, answer in _server.answers(num_workers, [pickle.dumps(job) for job in jobs]):
                if answer is not None:
                    answers[place] = answer
                    finished(jobs[place])
        except (OSError, EOFError, pickle.UnpicklingError):  # it was killed, or cannot load what this process has loaded
            end()
        except BaseException:  # such as KeyboardInterrupt: the answers will come and must not be taken for another one's
            end()
            raise
    return answers


@atexit.register
def end() -> None:
    """End the server, if there is one."""
    global _server
    if _server is not None:
        _server.end()
        _server = None


def main() -> None:
    """Serve until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the caller decides what ends
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forks beside threads, of which none holds a lock
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    load()
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        try:
            num_workers, jobs = pickle.load(requests)
        except EOFError:
            return
        for answer in _done(num_workers, jobs):
            pickle.dump(answer, answers)
            answers.flush()


def _done(num_workers: int, jobs: list[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yield the place of each job, in the order in which they end, and its pickled result, from new forks."""
    # All forks are made at the first `submit`, by this thread, before the pool starts threads of its own.
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("fork"), follow, (os.getpid(),)) as pool:
        places = {pool.submit(pickled_result, job): place for place, job in enumerate(jobs)}
        for future in as_completed(places):
            yield places[future], _result_of(future)


def _result_of(future: Future[bytes]) -> bytes | None:
    """Return a worker's result; None where the job failed, or the worker died."""
    try:
        return future.result()
    except Exception:  # whatever it is, the caller meets it in its own process, with its own traceback
        return None


if __name__ == "__main__":
    main()
