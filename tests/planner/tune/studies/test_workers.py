"""Two worker processes on one study: no trial is run twice, none is lost, and what a killed worker left is run again."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attfc_planner.tune.studies.claim import DIED, Record
from tests.planner.tune.studies.fake_worker import fake_question, opened_study
from tests.planner.tune.studies.postgresql import postgresql_url

LIMIT = 10


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.planner.tune.studies.fake_worker", *map(str, arguments)])


def records(url: str) -> list[Record]:
    with opened_study(url, fake_question()) as study:
        return study.records()


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql":
        with postgresql_url() as address:
            yield address
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/tune.db"
    else:
        yield f"journal:{tmp_path}/tune.jsonl"


def test_two_workers_and_a_killed_third(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    killed = start(url, log, LIMIT, 2)
    while len(log.read_text().splitlines()) < 2:
        assert killed.poll() is None, "the worker ended before its second trial"
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    workers = [start(url, log, LIMIT) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]

    trials = records(url)
    assert {record.state for record in trials} <= {"complete", "pruned", "failed"}
    counted = [record for record in trials if record.counts]
    assert len(counted) == len({record.key for record in counted}) == LIMIT, "none lost, none surplus"
    died = [record for record in trials if record.notes.get("outcome") == DIED]
    assert len(died) == 1
    assert [record.state for record in counted if record.key == died[0].key] == ["complete"], "run again"
    ran = collections.Counter(log.read_text().splitlines())
    twice = [setting for setting, times in ran.items() if times > 1]
    assert len(twice) == 1, "the killed worker's setting only"
    assert ran[twice[0]] == 2
    pids = {record.notes["worker"]["pid"] for record in counted}
    assert len(pids) >= 2
