"""The options of ``attfc-plan tune``; everything heavy is imported inside."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from attfc_planner.option_checks import check_limits, check_output, check_values, size_of_data

if TYPE_CHECKING:
    from attfc_planner.choose import Preference
    from attfc_train.profile import Precision


def tune(
    data: Annotated[str, typer.Option(help="Data set, as for a plan; some of its identities are held out.")],
    val: Annotated[list[str] | None, typer.Option(help="Verification set instead of held-out identities. Repeatable.")] = None,
    gpu: Annotated[str, typer.Option(help="auto or cpu: the device that is here.")] = "auto",
    trials: Annotated[int, typer.Option(help="Settings whose real train steps are run.", min=1)] = 40,
    hours: Annotated[float, typer.Option(help="Hours that this process takes in all.", min=0.001, max=1000)] = 2.0,
    storage: Annotated[
        str | None,
        typer.Option(
            help="postgresql://..., sqlite:///FILE or journal:FILE, for many workers; else a journal beside --output."
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name in the storage; else backbone and identities.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study that is there.")] = False,
    output: Annotated[Path, typer.Option(help="Where the training profile is written.")] = Path("best.json"),
    backbone: Annotated[str, typer.Option(help="Feature encoder: r18, r34, r50, r100, r200, mbf or tiny.")] = "r50",
    image_size: Annotated[int, typer.Option(help="Height and width of the images.", min=32, max=512)] = 112,
    precision: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32; without it the best of the device.")] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the images of the full run.", min=0.001)] = 5.0,
    max_accuracy_drop: Annotated[
        float, typer.Option(help="Points that the accuracy may lie below a full FC layer.", min=0)
    ] = 1.0,
    prefer: Annotated[
        str, typer.Option(help="speed, balanced or accuracy: what the plan, and a tuning without trainings, chooses.")
    ] = "balanced",
    seed: Annotated[int, typer.Option(help="Seed of the search.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Plan, then try settings with real train steps and short trainings on --data, and write best.json."""
    check_values(backbone, image_size, epochs, precision)
    check_limits(prefer, None, None)
    check_output(output)
    num_ids, num_images = size_of_data(data, None, None)

    from attfc_planner.plan import PlanRequest
    from attfc_planner.tune import session

    request = PlanRequest(
        num_ids=num_ids,
        num_images=num_images,
        data_path=data,
        backbone=backbone,
        image_size=image_size,
        precision=cast("Precision | None", precision),
        epochs=epochs,
        max_accuracy_drop=max_accuracy_drop,
        prefer=cast("Preference", prefer),
        val=tuple(val or ()),
        num_trials=trials,
        seed=seed,
        command=shlex.join(["attfc-plan", *sys.argv[1:]]),
    )
    session.tune(request, session.TuneOptions(gpu, output, hours, storage, study, resume))
