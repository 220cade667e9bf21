"""Traces from workers: what they may not need, what they leave behind, and what is done where they cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from attfc_planner.trace import workers
from attfc_planner.trace.history import Trace
from attfc_planner.trace.jobs import Job, result
from attfc_train.errors import ProfileError
from tests.planner.trace.profiles import small_profile
from tests.train.test_processes import is_gone, within

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="traces are made by the caller itself")


@pytest.fixture(autouse=True)
def no_server() -> Iterator[None]:
    workers.end()
    yield
    workers.end()


def jobs(*sizes: int) -> list[Job]:
    return [("exact", small_profile(batch_size=size), None) for size in sizes]


def alike(traces: Sequence[object], others: Sequence[object]) -> bool:
    """Return whether these are traces with the same history."""
    assert all(isinstance(trace, Trace) for trace in (*traces, *others))
    return [histories(trace) for trace in traces] == [histories(trace) for trace in others]


def histories(trace: Trace) -> tuple[object, ...]:
    return trace.events, trace.nbytes.tolist(), trace.ops, trace.phases


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_workers_do_what_this_process_would(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [result(job) for job in jobs(8, 16, 24)]
    monkeypatch.setattr(workers, "result", lambda job: pytest.fail("made here"))
    assert alike(workers.results(jobs(8, 16, 24)), expected)
    assert workers.results([]) == []


def test_the_server_stays_for_the_next_question() -> None:
    """Catches a server a question: torch would be loaded again for the networks, which come after their heads."""
    workers.results(jobs(8))
    first = workers._server
    workers.results(jobs(16))
    assert workers._server is first


def test_what_a_lost_server_owes_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches results that are lost with the server, and a server that stays lost."""
    workers.results(jobs(8))
    lost = workers._server
    assert lost is not None
    lost._process.kill()
    lost._process.wait()
    with monkeypatch.context() as late:
        late.setattr(workers.Server, "serves", True)  # it dies between the look and the question
        assert alike(workers.results(jobs(8)), [result(*jobs(8))])
    assert alike(workers.results(jobs(8)), [result(*jobs(8))])
    assert workers._server is not lost


def test_what_a_worker_dies_of_is_made_here() -> None:
    """Catches a pool whose breaking takes the other results, or the caller, with it."""
    ((kind, profile, _),) = jobs(8)
    deadly: Any = (kind, profile, Deadly())
    asked = [deadly, *jobs(16)]
    ended: list[Job] = []
    assert alike(workers.results(asked, ended.append), [result(job) for job in jobs(8, 16)])
    assert len(ended) == len(asked), "a job is told of once, wherever it is done"
    assert all(job in asked for job in ended)


def test_an_error_of_a_job_is_its_own() -> None:
    broken = small_profile().model_copy(update={"model": small_profile().model.model_copy(update={"backbone": "none"})})
    with pytest.raises(ProfileError, match="none"):
        workers.results([("exact", broken, None)])


def test_an_interrupted_question_gets_no_late_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server that is kept: its answer would be taken for the next question's."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    workers.results(jobs(8))
    monkeypatch.setattr(workers.Server, "answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workers.results(jobs(8, 16))
    monkeypatch.undo()
    assert workers._server is None
    assert alike(workers.results(jobs(24)), [result(*jobs(24))])


SCRIPT = """
import sys
from pathlib import Path
from attfc_planner.trace.store import Traces
from tests.planner.trace.profiles import small_profile
print("once", flush=True)
traces = Traces(Path(sys.argv[1]))
traces.prepare_exact([small_profile(backbone="r50", batch_size=size) for size in map(int, sys.argv[2:])])
assert len(traces._exact) == len(sys.argv) - 2
print("torch" in sys.modules)
"""


def script(folder: Path, *sizes: int) -> list[str]:
    (folder / "unguarded.py").write_text(SCRIPT)
    return [sys.executable, "-W", "error", str(folder / "unguarded.py"), str(folder / "cache"), *map(str, sizes)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def test_a_script_without_a_guard_runs_once_and_never_loads_torch(tmp_path: Path) -> None:
    """Catches multiprocessing's own servers, which run the script in every child, and warnings of forks beside threads."""
    done = subprocess.run(script(tmp_path, 8, 12), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("once\nFalse\n", "")


def descendants(number: int) -> set[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{number}/task").glob("*/children")]
    except OSError:
        return set()
    children = {int(child) for text in lists for child in text.split()}
    return children.union(*map(descendants, children))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_nothing_stays_when_the_caller_is_killed(tmp_path: Path) -> None:
    """Catches workers that do not `follow` the server: they would wait for work for ever, hundreds of MiB each."""
    with subprocess.Popen(script(tmp_path, *range(8, 200, 4)), env=ENVIRONMENT, stdout=subprocess.DEVNULL) as caller:
        most = 1 + min(os.cpu_count() or 1, workers.MOST_WORKERS)
        assert within(120, lambda: len(descendants(caller.pid)) == most), "a server and its workers"
        left_behind = descendants(caller.pid)
        caller.kill()
    assert within(20, lambda: all(map(is_gone, left_behind))), [number for number in left_behind if not is_gone(number)]
