"""``dspex-pool run``: from the options to the exit status."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_pool.cli.execution import Execution, Plan
from dspex_pool.cli.journal import open_journal, write_output
from dspex_pool.cli.logs import logs_on_screen
from dspex_pool.cli.plan import STDOUT, Selection, choose_expected_field, choose_files, require_field
from dspex_pool.cli.pool_settings import config_for_run, load_config, row_timeout
from dspex_pool.cli.problems import CliError
from dspex_pool.cli.program import choose_lm, choose_program
from dspex_pool.cli.recorder import write_lines
from dspex_pool.cli.records import Fingerprint
from dspex_pool.cli.rows import open_input, survey_rows
from dspex_pool.cli.screen import choose_screen, print_summary
from dspex_pool.cli.summary import Tally, exit_code_of_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.cli.execution import OpenRunner
    from dspex_pool.cli.journal import Journal
    from dspex_pool.cli.problems import ExitCode
    from dspex_pool.cli.program import LmChoice, ProgramChoice
    from dspex_pool.cli.rows import InputFile
    from dspex_pool.cli.screen import Screen
    from dspex_pool.config import PoolConfig

__all__ = ["RunOptions", "make_plan", "recalled", "run_command"]

#: Field that is compared with the answers where the command line names none.
EXPECTED_FIELD = "expected"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command's arguments and options, by the names of the command line."""

    program: str
    input: str
    output: str | None = None
    format: str | None = None
    module: str | None = None
    signature: str | None = None
    state: str | None = None
    tool: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    lm: str | None = None
    api_key_env: str | None = None
    api_base: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    session_field: str | None = None
    expected_field: str | None = None
    workers: int | None = None
    timeout: float | None = None
    retries: int | None = None
    journal: str | None = None
    resume: bool = False
    retry_failed: bool = False
    overwrite: bool = False
    config: str | None = None
    profile: str | None = None
    set_: tuple[str, ...] = ()
    progress: bool = False
    quiet: bool = False
    verbose: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunOptions:
        """Read the command line's values, in which options that may be repeated are lists or ``None``."""
        lists = {key: tuple(given[key] or ()) for key in ("tool", "allow", "set_")}
        return cls(**{**given, **lists})


def run_command(options: RunOptions, open_runner: OpenRunner) -> ExitCode:
    """Run the rows that the options ask for.

    Args:
        options: What the user wants.
        open_runner: Opens the pool.

    Raises:
        CliError: An option, a file or the input is wrong.
        DspexPoolError: The pool could not start, or lost its workers for good.
    """
    config = load_config(file=options.config, profile=options.profile, settings=options.set_)
    with open_input(options.input, options.format) as source:
        plan = make_plan(options, config, source)
        with ExitStack() as stack:
            journal = None
            if plan.files.journal is not None:
                go_on = plan.selection is not None
                journal = stack.enter_context(
                    open_journal(
                        plan.files.journal, plan.fingerprint, go_on=go_on, overwrite=options.overwrite
                    )
                )
            return _carry_out(options, config, plan, journal, open_runner)


def make_plan(options: RunOptions, config: PoolConfig, source: InputFile) -> Plan:
    """Check everything that can be checked before a worker starts and before a file is touched.

    Raises:
        CliError: An option, a file or the input is wrong.
    """
    program, lm = _program_of(options, config), _lm_of(options)
    selection = Selection.of(resume=options.resume, retry_failed=options.retry_failed)
    survey = survey_rows(
        source.rows(),
        source.label,
        session_field=options.session_field,
        expected_field=options.expected_field or EXPECTED_FIELD,
    )
    if options.session_field is not None:
        require_field(options.session_field, "--session-field", len(survey.sessions), survey)
    return Plan(
        source=source,
        survey=survey,
        program=program,
        lm=lm,
        selection=selection,
        fingerprint=Fingerprint(source.digest(), program.digest(), lm.digest()),
        session_field=options.session_field,
        expected_field=choose_expected_field(options.expected_field, survey),
        row_timeout=row_timeout(config, options.timeout),
        # Last, because it makes the directory of the output.
        files=choose_files(
            options.input,
            options.output,
            options.journal,
            selection=selection,
            overwrite=options.overwrite,
        ),
    )


def recalled(plan: Plan, journal: Journal | None) -> tuple[Tally, list[int]]:
    """Return the books with the rows of an earlier run that stay as they are, and the lines of these rows."""
    tally = Tally(plan.survey.rows)
    kept: list[int] = []
    if journal is not None and plan.selection is not None:
        kept = [line for line, mark in journal.marks.items() if not plan.selection.wants(mark)]
        for line in kept:
            tally.recall(journal.marks[line])
    return tally, kept


def _program_of(options: RunOptions, config: PoolConfig) -> ProgramChoice:
    program = choose_program(
        options.program,
        module=options.module,
        signature=options.signature,
        tools=options.tool,
        state=options.state,
    )
    if program.needs_allow and not (options.allow or config.allow):
        raise CliError(f"{program.label!r} runs code of yours: allow its module with --allow PREFIX")
    return program


def _lm_of(options: RunOptions) -> LmChoice:
    return choose_lm(
        options.lm,
        api_key_env=options.api_key_env,
        api_base=options.api_base,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )


def _carry_out(
    options: RunOptions, config: PoolConfig, plan: Plan, journal: Journal | None, open_runner: OpenRunner
) -> ExitCode:
    tally, kept = recalled(plan, journal)
    fitted = config_for_run(
        config,
        rows=tally.total - tally.earlier,
        sessions=len(plan.survey.sessions),
        workers=options.workers,
        timeout=plan.row_timeout,
        retries=options.retries,
        allow=options.allow,
    )
    if journal is not None and plan.files.output == STDOUT:
        write_lines(journal.answers(kept))
    with choose_screen(total=tally.total, quiet=options.quiet, progress=options.progress) as screen:
        execution = Execution(plan, fitted, tally, screen, open_runner, journal, options.verbose)
        try:
            if tally.done < tally.total:
                with logs_on_screen(screen.say, is_verbose=options.verbose):
                    execution.carry_out()
        finally:
            _finish(plan, journal, tally, screen)
    summary = tally.summary(execution.elapsed)
    if not options.quiet:
        print_summary(summary)
    return exit_code_of_run(summary, stopped_by=execution.stopped_by)


def _finish(plan: Plan, journal: Journal | None, tally: Tally, screen: Screen) -> None:
    """Write the output, also of a run that did not get to its end, and say how to go on."""
    if journal is None:
        return
    if not journal.marks:
        journal.discard()
        return
    if plan.files.output != STDOUT:
        write_output(journal, plan.files.output)
    missing = tally.total - tally.done
    if missing:
        screen.say(f"{missing} of {tally.total} rows are missing; the same command with --resume runs them")
