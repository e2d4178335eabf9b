"""The command line. Every import of weight stands inside a command, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

import click

from tuner import __version__, interrupts
from tuner.config import SearchConfig, resolve
from tuner.errors import EnvironmentFault, RunError, TunerError, memory_faults, package_faults
from tuner.grammar import counted
from tuner.interrupts import Terminated
from tuner.loading import keras_loaded
from tuner.options import config_from, is_given, job_options, read_options, search_options
from tuner.records import Outcome

__all__ = ["cli", "main"]

EXIT_DONE, EXIT_NOTHING_STABLE, EXIT_BUG, EXIT_SIGINT, EXIT_SIGTERM = 0, 1, 70, 130, 143
ISSUES = "Please report it with the traceback, the command and the versions (python -m tuner --version; pip freeze)."

Detail = Literal["quiet", "trials", "epochs"]


def main() -> None:
    """Run the command line and end the process with the exit code of the contract."""
    interrupts.install()
    try:
        with package_faults(), memory_faults():
            code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        _say("Stopped. Everything finished so far is saved.")
        code = EXIT_SIGINT
    except Terminated:
        _say("Terminated. Everything finished so far is saved.")
        code = EXIT_SIGTERM
    except TunerError as error:
        _say(f"{type(error).__name__}: {error}")
        code = error.exit_code
    except Exception:
        logging.getLogger(__name__).debug("unexpected error", exc_info=True)
        import traceback

        _say(f"{traceback.format_exc()}\nThis is a bug of tuner {__version__}. {ISSUES}")
        code = EXIT_BUG
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _print_json(document: Any) -> None:
    """One JSON document on stdout; NaN and infinity, which JSON does not have, become null."""
    click.echo(json.dumps(_finite_only(document), allow_nan=False))


def _finite_only(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite_only(item) for name, item in value.items()}
    return [_finite_only(item) for item in value] if isinstance(value, list | tuple) else value


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tuner")
def cli() -> None:
    """Find a CNN configuration that trains without loss spikes, and say why others did not.

    Start with: python -m tuner search DATA
    """


@cli.command()
@search_options
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path), help="Run folder; the same again goes on where it stopped."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
@click.option(
    "--events", type=click.Path(path_type=Path, dir_okay=False), help="Append one JSON line for each event to FILE."
)
@click.option("-v", "--verbose", is_flag=True, help="A line for every epoch too.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only the result.")
@click.pass_context
def search(
    context: click.Context,
    /,
    config_file: Path | None,
    run_dir: Path | None,
    as_json: bool,
    events: Path | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Search hyperparameters for DATA; without DATA, scikit-learn's handwritten digits.

    DATA is a folder with one sub-folder of images for each class, a .npz file, or a .csv, .tsv or .parquet table.
    """
    from tuner.search.machine import environments_of
    from tuner.search.standby import Standby

    started = time.monotonic()
    config = config_from(context, options, config_file)
    # Before anything else is imported: they take longer than all that comes before their first order.
    is_over = run_dir is not None and _is_over(run_dir, config)
    standby = context.with_resource(Standby([] if is_over else environments_of(config)))
    from rich.console import Console

    from tuner import wording
    from tuner.data import cache
    from tuner.progress import AuditProgress, ReadingProgress
    from tuner.search import plan, setup

    root, goes_on = (run_dir, os.path.isfile(run_dir / "config.yaml")) if run_dir else setup.choose_folder(config)
    if not quiet:
        _say(f"Reading {config.data or 'the digits'} ...")
    console = Console(stderr=True)
    before = None if quiet else AuditProgress(console).tell
    with ReadingProgress(console, is_quiet=quiet):
        folder, dataset = setup.prepare(config, root, before=before)
    setup.note_start(folder, sys.argv[1:])
    if not quiet:
        _say(f"{'Going on with' if goes_on else 'New run in'} {root}")
        cost = cache.estimate(folder.data_dir, dataset.spec, dataset.proposed)
        for line in filter(None, [*wording.describe_data(dataset), wording.preparation_line(cost)]):
            _say(f"  {line}")
    try:
        trials, report = _run(config, folder, events=events, detail=_detail(quiet, verbose), standby=standby)
    except TunerError:
        if not goes_on:
            setup.discard_if_unused(folder)
        raise
    if ending := folder.load_ending():
        _say(f"The search ended before --trials {config.trials}: {ending}.")
    for line in wording.summary_lines(trials, report=report, root=root, is_pareto=config.is_pareto):
        _say(line)
    if config.time_limit and not plan.is_finished(folder, config):
        _say("The time limit came before the end of search and confirmation; the same command goes on.")
    if as_json:
        _print_json(wording.result(trials, root=root, seconds=time.monotonic() - started, is_pareto=config.is_pareto))
    context.exit(_verdict(trials))


def _is_over(root: Path, config: SearchConfig) -> bool:
    """Whether a search has nothing left to do in its folder."""
    # A search that came to its end has written its report; only then it is worth the second that looking takes.
    if not all(os.path.isfile(root / name) for name in ("config.yaml", "report.html")):
        return False
    from tuner.search.plan import is_finished
    from tuner.store import RunFolder

    try:
        return is_finished(RunFolder(root), config)
    except TunerError:
        return False


def _run(
    config: SearchConfig,
    folder: Any,
    *,
    events: Path | None,
    detail: Detail,
    only_confirm: bool = False,
    standby: Any = None,
) -> tuple[Any, Path]:
    """Supervise the workers to the end of search and confirmation, then write the report."""
    from rich.console import Console

    from reports import write_report
    from tuner.data import cache
    from tuner.progress import Events, Progress
    from tuner.search.plan import is_finished, load_claims
    from tuner.search.quarantine import find_damaged, quarantine
    from tuner.search.study import load_trials
    from tuner.search.supervisor import supervise

    deadline = time.time() + config.time_limit if config.time_limit else None
    log = Events(events)
    with folder.lock():
        if told := quarantine(folder, find_damaged(folder)):
            _say(told)
        log.emit("search_started", run=str(folder.root), trials=config.trials)
        try:
            with Progress(Console(stderr=True), config, detail=detail) as live:

                def tick() -> None:
                    trials = load_trials(folder)
                    live.show_range(folder.load_rate_range())
                    live.show_preparation(cache.preparing_frac(folder.data_dir))
                    live.show_claims(load_claims(folder))
                    live.update(trials, folder.load_confirm_plan())
                    adaptation = folder.load_adaptation()
                    live.show_adaptation(adaptation)
                    log.update(trials, adaptation)

                if only_confirm or not is_finished(folder, config):
                    supervise(folder, deadline=deadline, on_tick=tick, only_confirm=only_confirm, standby=standby)
        except (KeyboardInterrupt, Terminated):
            again = _resume_command(None if only_confirm else folder.root)
            _say(f"Stopping. The same command goes on where this one stopped: {again}")
            log.emit("search_stopped")
            raise
        except TunerError:
            with contextlib.suppress(TunerError):
                if load_trials(folder):
                    _say(f"Report of what there is: {write_report(folder)}")
            raise
        trials = load_trials(folder)
        report = write_report(folder)
        log.emit("search_finished", trials=len(trials), ending=folder.load_ending())
    return trials, report


def _detail(quiet: bool, verbose: bool) -> Detail:
    return "quiet" if quiet else "epochs" if verbose else "trials"


def _resume_command(root: Path | None) -> str:
    """The command that was typed; that of a search names its run folder."""
    import shlex

    from tuner.wording import PROGRAM

    arguments = sys.argv[1:]
    if (
        root is not None
        and "--run" not in arguments
        and not any(argument.startswith("--run=") for argument in arguments)
    ):
        arguments = [*arguments, "--run", str(root)]
    return f"{PROGRAM} {shlex.join(arguments)}"


def _verdict(trials: Any) -> int:
    from tuner.stability.ranking import STABLE, rank

    judged = [trial for trial in rank(trials) if trial.outcome is not Outcome.PRUNED]
    stable = any(trial.stability is not None and trial.stability >= STABLE for trial in judged)
    return EXIT_DONE if stable else EXIT_NOTHING_STABLE


@cli.command()
@click.argument("data", required=False)
@read_options
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the split.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document on stdout.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings as one page there.")
@click.pass_context
def audit(context: click.Context, /, as_json: bool, html: Path | None, **options: Any) -> None:
    """Look for faults in DATA before a training second is spent. Exit code 3 if any is severe."""
    import dataclasses

    from rich.console import Console

    from tuner.data.audit import SEVERE
    from tuner.progress import AuditProgress, ReadingProgress
    from tuner.search.setup import read_data
    from tuner.wording import audit_lines

    given = {name: value for name, value in options.items() if value is not None}
    console = Console(stderr=True)
    with ReadingProgress(console):
        record = read_data(resolve(given, None), before=AuditProgress(console).tell).record
    if html is not None:
        from reports.audit import write_audit

        write_audit(record, html)
    if as_json:
        findings = [dataclasses.asdict(finding) for finding in record.findings]
        _print_json({"data": record.source, "notes": record.notes, "findings": findings})
    else:
        for line in [*audit_lines(record), *([f"Page: {html}"] if html else [])]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    context.exit(3 if any(finding.severity >= SEVERE for finding in record.findings) else EXIT_DONE)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1, 100), default=3, show_default=True, help="Number of finalists.")
@click.option("--seeds", type=click.IntRange(2, 100), default=3, show_default=True, help="Fresh trainings of each.")
@click.option(
    "--fresh-split", is_flag=True, help="Have each seed draw its own training and validation part; the test part stays."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only the result.")
@click.pass_context
def confirm(
    context: click.Context, /, run: Path, top: int, seeds: int, fresh_split: bool, as_json: bool, quiet: bool
) -> None:
    """Train the finalists of a run again on fresh seeds; what was done before counts."""
    from tuner import wording
    from tuner.search.plan import plan_confirmation
    from tuner.store import RunFolder

    started = time.monotonic()
    folder = RunFolder.open(run)
    with folder.lock():
        plan = plan_confirmation(folder, top=top, seeds=seeds, fresh_split=fresh_split)
    if plan is None:
        raise RunError(f"{str(run)!r} has no finished trial to confirm. Search first: python -m tuner search DATA")
    config = folder.load_config()
    trials, page = _run(config, folder, events=None, detail=_detail(quiet, False), only_confirm=True)
    for line in wording.summary_lines(trials, report=page, root=run, is_pareto=config.is_pareto):
        _say(line)
    if as_json:
        _print_json(wording.result(trials, root=run, seconds=time.monotonic() - started, is_pareto=config.is_pareto))
    context.exit(_verdict(trials))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON document on stdout.")
def status(run: Path, as_json: bool) -> None:
    """Progress and leaders of a running or finished search."""
    from collections import Counter

    from rich.console import Console

    from tuner import leases, wording
    from tuner.search.plan import is_finished, load_claims
    from tuner.search.quarantine import find_damaged, named
    from tuner.search.study import load_trials
    from tuner.stability.baseline import baseline_sentence
    from tuner.store import RunFolder

    folder = RunFolder.open(run)
    config, trials = folder.load_config(), load_trials(folder)
    # By a search on this machine, or by batch jobs on others.
    is_supervised = folder.is_held() or bool(leases.live(folder))
    # A trial that was put back, or whose supervisor died, has been started, but nothing trains it.
    seconds = sum(
        (trial.finished or time.time()) - trial.started
        for trial in trials
        if trial.started and (trial.finished or (trial.outcome is Outcome.RUNNING and is_supervised))
    )
    seconds += sum(run.seconds for run in wording.fresh_runs(trials))
    if as_json:
        _print_json(wording.result(trials, root=run, seconds=seconds, is_pareto=config.is_pareto))
        return
    console = Console(stderr=True)
    finished = [trial for trial in trials if trial.outcome not in (Outcome.RUNNING, Outcome.WAITING)]
    told = f"{run}: {len(finished)} of {config.trials} trials finished, {wording.duration(seconds)} of training"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    if found := folder.load_rate_range():
        console.print(wording.range_line(found), highlight=False, markup=False, soft_wrap=True)
    if ending := folder.load_ending():
        console.print(f"It ended before that: {ending}.", highlight=False, markup=False, soft_wrap=True)
    if folder.load_jobs():
        from tuner.search.batch import job_states

        try:
            counts = Counter(state for _, state in job_states(folder))
            told = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
            console.print(f"Batch jobs: {told}", highlight=False, markup=False, soft_wrap=True)
        except EnvironmentFault as error:
            console.print(f"Batch jobs: {error}", highlight=False, markup=False, soft_wrap=True)
    if not is_supervised and not is_finished(folder, config):
        console.print("Not running now; the same search command goes on.")
    for trial in trials:
        if trial.outcome is Outcome.RUNNING and is_supervised:
            who = wording.worker_text(config, trial.worker)
            console.print(f"trial {trial.number}{who}: {len(trial.epoch_losses)} of {config.epochs} epochs done")
    for claim in load_claims(folder) if is_supervised else ():
        console.print(wording.claim_line(config, claim))
    faults = [f"Left out: {fault}" for trial in trials for fault in trial.faults]
    if damaged := named(folder, find_damaged(folder)):
        faults.append(f"{damaged} The same search command sets them aside and goes on.")
    for fault in faults:
        console.print(fault, highlight=False, markup=False, soft_wrap=True)
    if finished:
        console.print(wording.leaders_table(trials))
        causes = wording.cause_lines(trials, folder.load_adaptation())
        front = wording.front_lines(trials) if config.is_pareto else []
        for line in filter(None, [baseline_sentence(trials), *causes, *front]):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    else:
        console.print("No trial has finished yet.")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--tensorboard",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also write the trials into a new folder, as TensorBoard reads them: curves and HParams.",
)
def report(run: Path, tensorboard: Path | None) -> None:
    """Write the report of a run as one HTML page that opens offline."""
    from reports import write_report
    from tuner.store import RunFolder

    folder = RunFolder.open(run)
    if tensorboard is not None:
        import shlex

        from reports.tensorboard import write_tensorboard

        num_trials = write_tensorboard(folder, tensorboard)
        _say(f"{counted(num_trials, 'trials')} for TensorBoard: tensorboard --logdir {shlex.quote(str(tensorboard))}")
    click.echo(write_report(folder))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the bundle; new or empty."
)
@click.option("--trial", type=click.IntRange(min=0), help="Export this trial instead of the best.")
def export(run: Path, output: Path, trial: int | None) -> None:
    """Write the best configuration as one bundle: settings, model, fitted pipeline, training script, model card."""
    from tuner.store import RunFolder

    folder = RunFolder.open(run)
    with keras_loaded():
        from tuner.export import export_bundle

        card = export_bundle(folder, output, trial=trial)
    for line in card:
        _say(line)


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="CSV file to write."
)
def predict(bundle: Path, data: str, output: Path) -> None:
    """Predict DATA with an exported BUNDLE: label and probabilities (or the number) of each row."""
    from rich.console import Console

    from tuner.bundle import check_bundle
    from tuner.progress import ReadingProgress

    check_bundle(bundle)
    notes: list[str] = []
    with ReadingProgress(Console(stderr=True)), keras_loaded():
        from tuner.inference import predict_file

        num_rows = predict_file(bundle, data, output, notes=notes)
    for note in notes:
        _say(f"note: {note}")
    _say(f"{counted(num_rows, 'predictions')} written to {output}")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("data", required=False)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    help="Another seed of the initial weights and the order; by default the exported one.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the trained model there as a bundle.")
@click.option("--no-guard", is_flag=True, help="Do not roll a training of another --seed back when its loss spikes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
@click.pass_context
def train(
    context: click.Context,
    /,
    config: Path,
    data: str | None,
    seed: int | None,
    output: Path | None,
    no_guard: bool,
    as_json: bool,
) -> None:
    """Train again: CONFIG is a bundle, its config.yaml, or the folder of a trial of a run, such as RUN/trials/0007."""
    with keras_loaded():
        from tuner.retrain import train_again

        outcome = train_again(config, data, seed=seed, output=output, is_guarded=not no_guard)
    for name, value in outcome.items():
        _say(f"{name}: {value}")
    if output is not None and "bundle" not in outcome:
        _say("No bundle was written: the training failed.")
    if as_json:
        _print_json(outcome)
    context.exit(EXIT_NOTHING_STABLE if Outcome(outcome["outcome"]).is_failed else EXIT_DONE)


@cli.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--loss-column", metavar="NAME", help="Column of the training loss, if it is not called loss.")
@click.option("--val-column", metavar="NAME", help="Column of the validation loss, if it is not called val_loss.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document on stdout.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the curves with what was found: FILE.html or FILE.png.",
)
def diagnose(log: Path, loss_column: str | None, val_column: str | None, as_json: bool, output: Path | None) -> None:
    """Say what went wrong in a training, also one made elsewhere.

    LOG is a file of Keras' CSVLogger, History.history as JSON, a TensorBoard folder, or a run or trial of tuner.
    """
    from rich.console import Console

    from reports import diagnosis
    from tuner.stability import logs

    examinations = diagnosis.examine(logs.read(log, loss_column=loss_column, val_column=val_column))
    picture = diagnosis.write_picture(str(log), examinations, output) if output else None
    if as_json:
        _print_json(diagnosis.document(str(log), examinations))
    else:
        diagnosis.show(examinations, Console(stderr=True))
    if picture:
        _say(f"Picture: {picture}")


@cli.command(hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--number", type=click.IntRange(min=0), default=0, help="Of this worker; each of a run has its own.")
@click.option("--until", type=float, help="Unix time after which no trial is started.")
@click.option("--only-confirm", is_flag=True, help="Carry out the planned confirmation and nothing else.")
def worker(run: Path, number: int, until: float | None, only_confirm: bool) -> None:
    """Work on the trials of a run; `search` starts this."""
    from tuner.search.supervisor import run_worker
    from tuner.store import RunFolder

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # What it does goes to its log; of other packages only warnings.
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("tuner").setLevel(logging.INFO)
    run_worker(RunFolder.open(run), number=number, deadline=until, only_confirm=only_confirm)


@cli.command(hidden=True)
def standby() -> None:
    """Load Keras, then be the worker that standard input tells of; `search` starts this."""
    from tuner.search.standby import await_order

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if arguments := await_order():
        cli.main(arguments, standalone_mode=False)


@cli.command()
@search_options
@job_options
@click.option("--run", "run_dir", type=click.Path(path_type=Path), required=True, help="Run folder that all nodes see.")
@click.option("--backend", type=click.Choice(["slurm", "kubernetes", "local"]), required=True, help="Scheduler.")
@click.option("--dry-run", is_flag=True, help="Set the run up and print the script; submit nothing.")
@click.pass_context
def submit(
    context: click.Context,
    /,
    config_file: Path | None,
    run_dir: Path,
    backend: Literal["slurm", "kubernetes", "local"],
    dry_run: bool,
    **options: Any,
) -> None:
    """Set a search up, or take the run that is there, and have batch jobs work on it."""
    from rich.console import Console

    from tuner.progress import ReadingProgress
    from tuner.search import batch, setup
    from tuner.store import RunFolder

    of_job = {name: options.pop(name) for name in list(options) if name.startswith("job_")}
    given = {name.removeprefix("job_"): value for name, value in of_job.items() if is_given(context, name)}
    of_jobs = batch.job_options(backend, given)
    is_named = config_file is not None or any(is_given(context, name) for name in options)
    is_there = os.path.isfile(run_dir / "config.yaml")
    config = (
        config_from(context, options, config_file) if is_named or not is_there else RunFolder(run_dir).load_config()
    )
    batch.check_config(config, backend)
    if not dry_run:
        batch.require_scheduler(backend)
    if is_named or not is_there:
        _say(f"Reading {config.data or 'the digits'} ...")
        with ReadingProgress(Console(stderr=True)):
            folder, _ = setup.prepare(config, run_dir)
        setup.note_start(folder, sys.argv[1:])
    else:
        folder = RunFolder.open(run_dir)
    if dry_run:
        click.echo(batch.render(folder, of_jobs), nl=False)
        return
    jobs = batch.submit(folder, of_jobs, version=__version__)
    _say(f"Submitted {counted(jobs.num_jobs, 'jobs')} of {backend}: {jobs.number}")
    _say(f"Watch them: python -m tuner status {run_dir}; end them: python -m tuner cancel {run_dir}")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
def cancel(run: Path) -> None:
    """End the batch jobs of a run; everything finished so far is kept."""
    from tuner.search import batch
    from tuner.store import RunFolder

    numbers = batch.cancel_jobs(RunFolder.open(run))
    _say(f"Cancelled: {', '.join(numbers)}" if numbers else "No job of this run waits or runs.")


@cli.command(hidden=True)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first worker.")
def job(run: Path, first: int) -> None:
    """Supervise the workers of one batch job; what `submit` has the scheduler start."""
    from reports import write_report
    from tuner.search.job import run_job
    from tuner.store import RunFolder

    folder = RunFolder.open(run)
    run_job(folder, first=first, say=_say, write_report=lambda: write_report(folder))


@cli.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON document on stdout.")
def spaces(name: str | None, as_json: bool) -> None:
    """List the search spaces, their hyperparameters and ranges. NAME may be FILE.py:OBJECT."""
    import dataclasses

    with keras_loaded():
        from tuner.search.catalogue import describe_spaces

        described = describe_spaces(name)
    if as_json:
        _print_json({space: [dataclasses.asdict(row) for row in rows] for space, rows in described.items()})
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    for space, rows in described.items():
        table = Table(title=f"space {space}", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("hyperparameter", "type", "range", "default", "only when"):
            table.add_column(heading, no_wrap=heading == "hyperparameter", overflow="fold")
        for row in rows:
            scale = " (log)" if row.scale == "log" else ""
            # A space after each comma: lines then break between values, not inside them.
            shown, condition = (text.replace(",", ", ") for text in (row.range + scale, row.active_when))
            table.add_row(row.name, row.type, shown, str(row.default), condition)
        Console(stderr=True).print(table)
