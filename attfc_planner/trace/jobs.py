"""The work of making traces, cut into jobs that any process can do."""

from __future__ import annotations

import pickle
from typing import Literal, TypeAlias

from attfc_planner.trace.affine import AffineTrace, HeadModel, learn, learn_head
from attfc_planner.trace.align import NotAffine
from attfc_planner.trace.evaluation import EvaluationModel, learn_evaluation
from attfc_planner.trace.history import HeadBytes, Trace
from attfc_planner.trace.record import record, record_head
from attfc_train.profile.profile import TrainProfile

JobKind: TypeAlias = Literal["head", "network", "evaluation", "exact", "head bytes"]
Job: TypeAlias = tuple[JobKind, TrainProfile, HeadModel | None]
"""What is to be learned of which profile; a network comes with its head, or None where that is not affine."""
Result: TypeAlias = HeadModel | AffineTrace | EvaluationModel | Trace | HeadBytes | None
"""What was learned; None where every profile must be traced itself."""


def result(job: Job) -> Result:
    """Do a job and return what came of it.

    A job is done alike wherever it is: it reads nothing of its process and leaves nothing there.
    """
    kind, structure, head = job
    if kind == "exact":
        return record(structure, [structure, structure])
    if kind == "head bytes":
        return record_head(structure)
    try:
        if kind == "evaluation":
            return learn_evaluation(structure)
        if kind == "head":
            return learn_head(structure)
        return None if head is None else learn(structure, head)
    except NotAffine:
        return None


def pickled_result(job: bytes) -> bytes:
    """Return a pickled job's pickled result: what passes between processes, of which the one between the two reads nothing."""
    return pickle.dumps(result(pickle.loads(job)))
