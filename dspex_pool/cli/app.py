"""The commands as the shell sees them: names, options, help. The work is done in modules loaded on demand."""

# The annotations are read at run time by typer: they must not become strings.

from typing import Annotated

import typer

from dspex_pool.cli import options
from dspex_pool.cli.group import CommandGroup
from dspex_pool.cli.problems import printing, reporting

__all__ = ["app"]


app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dspex-pool {version('dspex-pool')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def commands(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Run DSPy programs in a pool of warm, isolated worker processes."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    context: typer.Context,
    program: options.Program,
    input: options.Input,  # noqa: A002 - the name is the user's
    output: options.Output = None,
    format: options.Format = None,  # noqa: A002 - the name is the user's
    module: options.Module = None,
    signature: options.Signature = None,
    state: options.State = None,
    tool: options.Tool = None,
    allow: options.Allow = None,
    lm: options.Lm = None,
    api_key_env: options.ApiKeyEnv = None,
    api_base: options.ApiBase = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    session_field: options.SessionField = None,
    expected_field: options.ExpectedField = None,
    workers: options.Workers = None,
    timeout: options.Timeout = None,
    retries: options.Retries = None,
    journal: options.JournalPath = None,
    resume: options.Resume = False,
    retry_failed: options.RetryFailed = False,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    profile: options.Profile = None,
    set_: options.Settings = None,
    progress: options.Progress = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Put every row of INPUT through PROGRAM, on real worker processes.

    A row is an object with the program's inputs, and an id if you like; else its line number is its id. A row
    that fails is a record in the output, not the end of the run. Output, one line a row, in the order of the
    input (on the standard output: as they are finished):

    \b
      {"id", "outputs", "error": null or {"type", "message"}, "attempts", "worker_id", "duration_s"}

    Finished rows are kept in a journal, from which the output is written at the end. After Ctrl-C (the first
    lets running rows finish, the second stops at once), SIGTERM, kill -9 or a failure, the same command with
    --resume runs what is missing. All of the input is read and checked before the first row is run.

    \b
    Exit status:
      0    all rows were answered
      1    some rows failed or are missing
      2    the command line, a file or a setting is wrong
      3    the pool could not start, or lost all its workers for good
      70   a defect of dspex-pool
      130  stopped by Ctrl-C
      141  whoever read the standard output is gone
      143  stopped by SIGTERM
    """
    from dspex_pool.cli.pool_runner import open_pool_runner
    from dspex_pool.cli.run_command import RunOptions, run_command

    with reporting(verbose=verbose):
        code = run_command(RunOptions.of(context.params), open_pool_runner)
    raise typer.Exit(code)


@app.command()
def doctor(
    config: options.Config = None,
    profile: options.Profile = None,
    set_: options.Settings = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Check whether a pool works here.

    The last check starts one real worker, pings it and stops it.

    \b
    Exit status:
      0    nothing failed; warnings may be there
      1    a check failed
      2    a setting is wrong
      130  stopped by Ctrl-C; no worker is left
      143  stopped by SIGTERM; the same
    """
    from dspex_pool.cli.doctor import examine, exit_code_of_findings, print_findings
    from dspex_pool.cli.pool_settings import load_config
    from dspex_pool.cli.worker_probe import probe_worker

    with reporting(verbose=verbose):
        findings = examine(load_config(file=config, profile=profile, settings=set_ or ()), probe_worker)
        with printing():
            print_findings(findings, as_json=as_json)
    raise typer.Exit(exit_code_of_findings(findings))


@app.command(name="config")
def show_config(
    config: options.Config = None,
    profile: options.Profile = None,
    set_: options.Settings = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Print the effective settings of the pool and where each came from."""
    from dspex_pool.cli.config_command import print_config
    from dspex_pool.cli.pool_settings import load_config

    with reporting(verbose=verbose), printing():
        print_config(load_config(file=config, profile=profile, settings=set_ or ()), as_json=as_json)
