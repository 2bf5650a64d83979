"""``quantcli run``: all models of a configuration, from samples to reports, with one exit code."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantcli.cli.command import Command, option
from quantcli.cli.failures import EXIT_SIGPIPE, failure_of, tell
from quantcli.cli.options import OUTPUT, json_option
from quantcli.cli.progress import NamedProgress, show_progress
from quantcli.cli.run_view import ModelLine, run_json, show_run
from quantcli.cli.screen import screen_of, write_error
from quantcli.cli.settings import Settings, global_options, settings_of
from quantcli.config.load import CONFIG_NAME, PYPROJECT, Config, find_config
from quantcli.config.models import ModelSettings, expand_models
from quantcli.errors import EXIT_GATE_FAILED, EXIT_OK, ConfigError, UsageError

if TYPE_CHECKING:
    from quantcli.cli.jobs import PlannedJob
    from quantcli.pipeline.run_state import RunState
    from quantcli.pipeline.run_types import Job, Outcome
    from quantcli.progress import Progress

_WHAT = "What is done"

_EPILOG = """\b
Examples:
  quantcli run
  quantcli run --only 'resnet*' --dry-run
  quantcli run --config release/quantcli.toml --check
"""


@click.command(
    cls=Command,
    tells_origins=True,
    epilog=_EPILOG,
    short_help="Run a configuration: all steps for all its models.",
)
@option(
    "--only",
    multiple=True,
    metavar="NAME",
    section=_WHAT,
    help="Only models of this name, or that a glob matches. Repeatable.",
)
@option(
    "--check",
    is_flag=True,
    section=_WHAT,
    help="Make everything again elsewhere and fail if the files that are there do not reproduce; writes nothing.",
)
@option("--dry-run", is_flag=True, section=_WHAT, help="Say what would be done and why; writes nothing.")
@option(
    "-f",
    "--force",
    is_flag=True,
    section=_WHAT,
    help="Make everything again, also over files that no run has written.",
)
@option("--exit-zero", is_flag=True, section=OUTPUT, help="Exit with 0 although a gate failed.")
@json_option("Print what became of every model as JSON.")
@global_options
@click.pass_context
def run(
    context: click.Context,
    /,
    only: tuple[str, ...],
    check: bool,
    dry_run: bool,
    force: bool,
    exit_zero: bool,
    json: bool,
) -> int:
    """Calibrate, convert, compare and report every model of quantcli.toml (or --config FILE).

    What is still good is used again: a step is done only where its model, samples, options or tools have
    changed since quantcli.lock was written. Names of files count from the folder of the configuration.

    One line for each model says the verdict. Exit code: the worst of all models, an error before a failed gate.
    """
    if check and (dry_run or force):
        raise UsageError(
            "U105", "--check makes everything again and writes nothing", hint="leave --dry-run and --force out"
        )
    settings = settings_of(context)
    path = settings.config or find_config(Path())
    if path is None:
        raise ConfigError(
            "C201",
            f"there is no '{CONFIG_NAME}' here",
            hint="write one with: quantcli init MODEL --data SPEC, or name one with --config",
        )
    from quantcli.cli.sections import read_config, sections

    config = read_config(path)
    from quantcli.cli.jobs import make_jobs
    from quantcli.pipeline.run_state import read_state

    with contextlib.chdir(config.folder):
        models = expand_models(config, sections())
        state = read_state(Path(CONFIG_NAME if path.name == PYPROJECT else path.name).with_suffix(".lock"))
        jobs = make_jobs(config, _chosen(models, only, config), settings)
        work = _Work(settings, state, check=check, dry_run=dry_run, force=force)
        with show_progress(settings) as progress:
            lines = [work.line(planned, progress) for planned in jobs]
        if not (check or dry_run):
            state.keep_only(model.name for model in models)
    codes = [EXIT_OK if exit_zero and line.exit_code == EXIT_GATE_FAILED else line.exit_code for line in lines]
    screen = screen_of(context)
    if json:
        screen.emit(run_json(lines, _worst(codes)))
    else:
        show_run(screen, lines, dry_run=dry_run, check=check)
    return _worst(codes)


class _Work:
    """How models are worked on: whatever goes wrong with one is its own line, and the others go on."""

    def __init__(self, settings: Settings, state: RunState, *, check: bool, dry_run: bool, force: bool) -> None:
        self._settings, self._state = settings, state
        self._check, self._dry_run, self._force = check, dry_run, force

    def line(self, planned: PlannedJob, progress: Progress) -> ModelLine:
        """Do the work on one model."""
        name = planned.job.name
        if self._settings.verbose:
            for text in planned.origins:
                write_error(f"option: {name}: {text}")
        try:
            outcome = self._outcome(planned.job, NamedProgress(progress, name))
        except Exception as error:  # whatever it is, it is told at once, and kept as the model's exit code
            failure = failure_of(error)
            if failure.exit_code in _ENDS_ALL:
                raise
            write_error(f"model '{name}':")
            tell(failure, error, self._settings)
            return ModelLine(name=name, exit_code=failure.exit_code, failure=failure)
        if not self._settings.quiet:
            for note in outcome.notes:
                write_error(f"note: {name}: {note}")
        return ModelLine(name=name, exit_code=EXIT_GATE_FAILED if outcome.failed else EXIT_OK, outcome=outcome)

    def _outcome(self, job: Job, progress: Progress) -> Outcome:
        if self._check:
            from quantcli.pipeline.run_check import check_job

            return check_job(job, progress)
        from quantcli.pipeline.run import foresee, run_job

        if self._dry_run:
            return foresee(job, self._state, force=self._force)
        return run_job(job, self._state, progress, force=self._force)


_ENDS_ALL = (EXIT_SIGPIPE,)
"""Exit codes of errors that are not about a model: nobody reads the output any more."""


def _chosen(models: Sequence[ModelSettings], only: Sequence[str], config: Config) -> Iterator[ModelSettings]:
    """Models that ``--only`` names; all of them without it.

    Raises:
        ConfigError: C207, a name matches none.
    """
    for pattern in only:
        if not any(fnmatch.fnmatchcase(model.name, pattern) for model in models):
            raise ConfigError(
                "C207",
                f"'{config.path.name}' has no model '{pattern}'",
                hint=f"there are {', '.join(model.name for model in models)}",
            )
    for model in models:
        if not only or any(fnmatch.fnmatchcase(model.name, pattern) for pattern in only):
            yield model


def _worst(codes: Sequence[int]) -> int:
    """The largest: 70, a bug, before 4, 3 and 2, errors, before 1, a failed gate, before 0."""
    return max(codes, default=EXIT_OK)
