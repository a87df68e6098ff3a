"""``flowerpress tune``: from a task to a codec for each tensor, in four commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowerpress.simulations.cli.options import (
    Clients,
    ConfigFile,
    DataFolder,
    Force,
    Overrides,
    Overwrite,
    Partition,
    Task,
    configure,
)
from flowerpress.simulations.cli.tune_output import (
    command_line,
    folder_of,
    make_folder,
    refuse_existing,
    show,
    stages,
    write,
)

if TYPE_CHECKING:
    from flowerpress.compression.rates.plan import RatePlan
    from flowerpress.simulations.config import SimulationConfig
    from flowerpress.simulations.tuning.profile import Profile

__all__ = ["COMMANDS", "HELP", "curve", "profile", "solve", "verify"]

HELP = """Find a codec for each tensor: the least error in a budget of bytes, or of seconds.

Four steps, each with a table, pictures and one report.html: profile measures, solve makes a plan of
it in milliseconds, curve shows what every budget would give, verify trains with the plan. A plan
is used wherever a codec is: flowerpress simulate --uplink plan.json
"""

ProfileFile = Annotated[Path, typer.Argument(help="What tune profile wrote.")]
Sensitivity = Annotated[
    str,
    typer.Option(
        help="Weights of the errors: none, loss or fisher, if measured. Verify before you trust "
        "fisher: it judges a trained model, and starves layers that are still moving."
    ),
]


def profile(
    overrides: Overrides = None,
    config: ConfigFile = None,
    task: Task = None,
    data: DataFolder = None,
    clients: Clients = None,
    partition: Partition = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of training before measuring.")] = 2,
    menu: Annotated[
        str,
        typer.Option(
            help="Settings to measure: rd, mixed, formats, topk, stc, qsgd, powersgd, or codecs "
            "separated by commas, such as int8,int4,nf4."
        ),
    ] = "rd",
    sensitivity: Annotated[
        str,
        typer.Option(
            help="fisher (squared gradients), loss (its change when one tensor is compressed), "
            "both or none."
        ),
    ] = "both",
    class_weights: Annotated[
        str | None,
        typer.Option(help="Classes that count more for the sensitivity, such as '3=5,8=2'."),
    ] = None,
    groups: Annotated[
        int,
        typer.Option(
            min=0, help="Blocks of rows of a tensor that holds most of the model (0: none)."
        ),
    ] = 0,
    time_budget: Annotated[
        float | None,
        typer.Option(help="Seconds; what they do not suffice for is left out (default: all)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File (default: runs/tune-TASK/profile.json)."),
    ] = None,
    force: Force = False,
) -> None:
    """Measure what settings cost on real updates of a few clients, and what the loss minds.

    A few clients train for a few rounds; each setting of the menu then really codes their updates.
    Sensitivities are measured on training data, never on the test set. Ctrl-C keeps what is there.

    Example: flowerpress tune profile --task mnist --time-budget 60 -o profile.json
    """
    settings = configure(
        config, overrides, task=task, data=data, clients=clients, partition=partition
    )
    from flowerpress.simulations.tuning.profiling import Profiling, Wanted
    from flowerpress.simulations.tuning.sections import measured_line
    from flowerpress.simulations.tuning.tables import profile_table
    from flowerpress.simulations.tuning.time_budget import TimeBudget

    out = output or Path("runs") / f"tune-{Path(settings.task).stem}" / "profile.json"
    refuse_existing(out, force)
    budget = TimeBudget(time_budget)
    wanted = Wanted(menu, sensitivity, class_weights, rounds, groups=groups)
    with stages() as tell:
        measuring = Profiling(settings, wanted, budget, tell)
        found = measuring.run(command_line())
    write(out, found.to_json())
    folder = folder_of(out.parent).having("profile", out, found.command)
    cut = tuple(f"cut short: {each}" for each in found.skipped)
    show(folder, profile_table(found), measured_line(found), cut, f"Profile: {out}")
    if budget.stopped:
        raise typer.Exit(130)


def solve(
    file: ProfileFile,
    target_bytes: Annotated[
        str | None,
        typer.Option(help="Bytes of a whole message, such as 8192, 8k (8,000) or 8KiB (8,192)."),
    ] = None,
    target_ratio: Annotated[
        float | None, typer.Option(help="How many times smaller than float32, such as 100.")
    ] = None,
    max_nmse: Annotated[
        float | None, typer.Option(help="Largest squared error by energy, such as 0.1.")
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(help="Uplink in bits a second, such as 64k; with --deadline.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds for the uplink of a round; with --bandwidth.")
    ] = None,
    allocator: Annotated[
        str, typer.Option(help="lambda, dp (L-GreCo's program), uniform or by-size.")
    ] = "lambda",
    sensitivity: Sensitivity = "none",
    fix: Annotated[
        list[str] | None,
        typer.Option(help="PATTERN=CODEC for tensors that keep a codec, such as '*.bias=fp16'."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File (default: plan.json beside the profile)."),
    ] = None,
    force: Force = False,
) -> None:
    """Make a plan: one codec for each tensor, within a budget of bytes, error or seconds.

    Example: flowerpress tune solve profile.json --bandwidth 64k --deadline 10 -o plan.json
    """
    from flowerpress.simulations.tuning.profile import Profile
    from flowerpress.simulations.tuning.solving import (
        exhausted,
        predicted,
        read_budget,
        solve_profile,
    )
    from flowerpress.simulations.tuning.tables import exhausted_note, plan_note, plan_table

    budget = read_budget(
        target_bytes=target_bytes,
        target_ratio=target_ratio,
        max_nmse=max_nmse,
        bandwidth=bandwidth,
        deadline=deadline,
        allocator=allocator,
    )
    found = Profile.read(file)
    out = output or file.with_name("plan.json")
    refuse_existing(out, force)
    plan = solve_profile(found, budget, sensitivity=sensitivity, fix=fix or [])
    make_folder(out.parent)
    plan.save(out)
    expected = predicted(found, plan, sensitivity)
    folder = folder_of(out.parent).having("profile", file, found.command)
    folder = folder.having("plan", out, command_line(), sensitivity=sensitivity)
    note = plan_note(plan, found.manifest.nbytes, expected, sensitivity)
    warnings = tuple(exhausted_note(names) for names in [exhausted(found, plan)] if names)
    show(folder, plan_table(plan, found.sizes, expected), note, warnings, f"Plan:    {out}")


def curve(
    file: ProfileFile,
    sensitivity: Sensitivity = "none",
    points: Annotated[int, typer.Option(min=2, max=200, help="Budgets to try.")] = 24,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder (default: the profile's).")
    ] = None,
) -> None:
    """Show what every budget would give, with each allocator: the whole Pareto front.

    Example: flowerpress tune curve profile.json -o tuning
    """
    from flowerpress.compression.rates.solve import ALLOCATORS
    from flowerpress.simulations.tuning.front import front, write_csv
    from flowerpress.simulations.tuning.profile import Profile
    from flowerpress.simulations.tuning.tables import front_note, front_table

    found = Profile.read(file)
    out = output or file.parent
    with stages() as tell:
        made = front(found, sensitivity=sensitivity, allocators=ALLOCATORS, count=points, tell=tell)
    make_folder(out)
    path = write_csv(out / "curve.csv", made)
    folder = folder_of(out).having("profile", file, found.command)
    folder = folder.having("curve", path, command_line(), curve=sensitivity)
    table = front_table(made, weighted=sensitivity != "none")
    show(folder, table, front_note(made, sensitivity), (), f"Numbers: {path}")


def verify(
    plan: Annotated[Path, typer.Option("--plan", help="The plan that tune solve wrote.")],
    overrides: Overrides = None,
    config: ConfigFile = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Its profile (default: the one in the plan's folder, else measured)."),
    ] = None,
    task: Task = None,
    data: DataFolder = None,
    clients: Clients = None,
    partition: Partition = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each run: 0, 1, ...")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder (default: the plan's).")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train with the plan, and with uniform, by-size and by-phase budgets of the same bytes.

    The downlink is none in all runs, so that they differ in the uplink alone. Without --task, the
    clients are those of the profile. Runs that are finished already are kept.

    Example: flowerpress tune verify --plan plan.json --rounds 5 --seeds 3
    """
    from flowerpress.compression.rates.plan import RatePlan
    from flowerpress.simulations.comparison.running import run_comparison
    from flowerpress.simulations.comparison.tables import comparison_setting
    from flowerpress.simulations.quiet import hush_flower
    from flowerpress.simulations.tuning.profile import Profile
    from flowerpress.simulations.tuning.verified import verify_note, verify_table
    from flowerpress.simulations.tuning.verifying import (
        common_bytes,
        config_words,
        plan_verification,
        write_uplinks,
    )

    chosen = RatePlan.read(plan)
    out = output or plan.parent
    place = profile or folder_of(plan.parent).path("profile")
    found = None if place is None else Profile.read(place)
    own = config_words(found.config) if found is not None and task is None and not config else []
    settings = configure(
        config,
        [*own, *(overrides or [])],
        task=task,
        data=data,
        clients=clients,
        partition=partition,
        rounds=rounds,
    )
    hush_flower()
    if found is None:
        found, place = _quick_profile(settings, chosen, out), out / "profile.json"
    root = out / "verify"
    uplinks = write_uplinks(found, chosen, root / "plans")
    planned = plan_verification(settings, uplinks, seeds, root)
    runs = run_comparison(planned, workers=workers, overwrite=overwrite)
    note = verify_note(common_bytes(found, chosen), settings.rounds, seeds)
    folder = (
        folder_of(out).having("plan", plan).having("verify", root, command_line(), verified=note)
    )
    folder = folder if place is None else folder.having("profile", place, found.command)
    show(folder, verify_table(runs), f"{note}.", (), comparison_setting(runs))


COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (profile, "Measure settings and sensitivities on real updates."),
    (solve, "A plan for a budget of bytes, error or seconds."),
    (curve, "What every budget would give, by allocator."),
    (verify, "Train with a plan beside simpler ones."),
)
"""Each command and its line in the list of commands."""


def _quick_profile(settings: SimulationConfig, plan: RatePlan, folder: Path) -> Profile:
    """Measure what the heuristics choose from: the plan's menu, on one round of clients."""
    from flowerpress.simulations.tuning.profiling import Profiling, Wanted

    wanted = Wanted(",".join(plan.menu) or "rd", "none", rounds=1)
    with stages() as tell:
        found = Profiling(settings, wanted, tell=tell).run(command_line())
    plan.check(found.manifest)
    write(folder / "profile.json", found.to_json())
    return found
