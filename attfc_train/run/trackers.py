"""Where a run's figures go beside its record: TensorBoard, Weights & Biases, MLflow; imported only when they are asked for.

A tracker is an object with `Tracker`'s two methods. What one cannot take is said once, and training goes on without it: the
record in the run's folder is complete in any case. A resumed run goes on in the same run of a service (``trackers.json``).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from attfc_train.errors import UsageError
from attfc_train.files import write_text_atomically
from attfc_train.profile.profile import TrainProfile

IDS_FILE = "trackers.json"
_PROJECT = "attfc"
_MOST_CHARACTERS = 250
"""Of a parameter: MLflow's oldest limit."""


class Tracker(Protocol):
    """What takes the figures of a run."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite figures by name, such as ``step/loss``, of an optimiser step."""
        ...

    def close(self) -> None:
        """Finish; nothing comes after it."""
        ...


class TrackedRun(NamedTuple):
    """What a tracker is told of the run when it is made."""

    folder: Path
    profile: TrainProfile
    first_step: int


class _TensorBoard:
    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, run: TrackedRun) -> None:
        wandb = importlib.import_module("wandb")
        known = _known_id(run, "wandb")
        self._run = wandb.init(
            project=_PROJECT,
            name=run.folder.name,
            dir=str(run.folder),
            config=_settings(run.profile),
            id=known,
            resume="allow" if known else None,
        )
        _keep_id(run, "wandb", str(self._run.id))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MlFlow:
    def __init__(self, run: TrackedRun) -> None:
        self._mlflow = importlib.import_module("mlflow")
        known = _known_id(run, "mlflow")
        self._mlflow.set_experiment(_PROJECT)
        started = self._mlflow.start_run(run_id=known, run_name=None if known else run.folder.name)
        if known is None:
            _keep_id(run, "mlflow", str(started.info.run_id))
            self._mlflow.log_params({key: str(value)[:_MOST_CHARACTERS] for key, value in _settings(run.profile).items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class TrackerKind(NamedTuple):
    """A kind of tracker."""

    package: str
    make: Callable[[TrackedRun], Tracker]
    remedy: str


TRACKERS: dict[str, TrackerKind] = {
    "--tensorboard": TrackerKind("tensorboard", _TensorBoard, "Run: pip install 'attfc[log]'."),
    "--wandb": TrackerKind("wandb", _WeightsAndBiases, "Run: pip install 'attfc[wandb]'."),
    "--mlflow": TrackerKind("mlflow", _MlFlow, "Run: pip install 'attfc[mlflow]'."),
}
"""The trackers by their option."""


def check_trackers(options: Sequence[str]) -> None:
    """Check that the packages of the options are installed; nothing is imported.

    Raises:
        UsageError: names the first that is not.
    """
    for option in options:
        kind = TRACKERS[option]
        spec = importlib.util.find_spec(kind.package)
        if spec is None or spec.origin is None:  # a folder of that name, such as wandb's own, is no package
            raise UsageError(f"{option} needs the package {kind.package}", "none installed", kind.remedy)


class Trackers:
    """All trackers of a run; one that fails is left out from there on, and a line says so.

    Args:
        options: keys of `TRACKERS`. say: prints a line.

    Raises:
        UsageError: a package is not installed, or refuses to begin.
    """

    def __init__(self, options: Sequence[str], run: TrackedRun, say: Callable[[str], None]) -> None:
        check_trackers(options)
        self._say = say
        self._open: dict[str, Tracker] = {}
        for option in options:
            try:
                self._open[option] = TRACKERS[option].make(run)
            except Exception as error:  # whatever a service's package raises: no login, no network, no folder
                self.close()
                got = _first_line(error)
                raise UsageError(
                    f"{option} must be able to begin", got, f"Log in or set it up, or leave {option} out."
                ) from error

    def scalars(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Hand on the finite floats of an event, by names such as ``step/loss``, in their order."""
        figures = {
            f"{event}/{key}": value for key, value in values.items() if isinstance(value, float) and math.isfinite(value)
        }
        if figures:
            self._each(lambda tracker: tracker.scalars(step, figures))

    def close(self) -> None:
        """Finish all of them."""
        self._each(lambda tracker: tracker.close())
        self._open = {}

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for option, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:  # a service that is away must not end a training
                del self._open[option]
                self._say(f"warning: {option} takes no more figures ({_first_line(error)}); log.jsonl goes on")


def _settings(profile: TrainProfile) -> dict[str, Any]:
    """Return the settings of a profile by dotted name."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    add("", json.loads(profile.model_dump_json(include={"name", "data", "model", "head", "optim", "run"})))
    return flat


def _ids(run: TrackedRun) -> dict[str, str]:
    try:
        ids = json.loads((run.folder / IDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in ids.items() if isinstance(value, str)} if isinstance(ids, dict) else {}


def _known_id(run: TrackedRun, service: str) -> str | None:
    return _ids(run).get(service) if run.first_step else None  # a run that begins again is another one


def _keep_id(run: TrackedRun, service: str, name: str) -> None:
    write_text_atomically(run.folder / IDS_FILE, json.dumps({**_ids(run), service: name}) + "\n")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
