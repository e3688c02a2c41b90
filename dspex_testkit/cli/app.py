"""The commands as the shell sees them: names, options, help. The work is done in modules loaded on demand."""

from pathlib import Path

import typer

from dspex_pool.cli.group import CommandGroup
from dspex_pool.cli.problems import CliError, printing, reporting
from dspex_testkit.cli import options

__all__ = ["app"]

app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def commands(context: typer.Context) -> None:
    """Test what is built on pools of worker processes, and workers themselves."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def conform(
    command: options.Command = None,
    profile: options.ProfileFile = None,
    known: options.Known = None,
    max_frame_bytes: options.MaxFrameBytes = None,
    timeout: options.Timeout = None,
    version: options.Version = None,
    only: options.Only = None,
    expected_failures: options.ExpectedFailures = None,
    junit: options.Junit = None,
    html: options.Html = None,
    list_: options.List = False,
    verbose: options.Verbose = False,
) -> None:
    """Hold a worker, in any language, to the clauses of the protocol.

    \b
      dspex-testkit conform --command 'slow=sleep {"seconds": 60}' -- ./my-worker --verbose

    \b
    Exit status:
      0    every clause that could be judged is kept, or broken as expected
      1    a clause is broken, or kept although it was expected to be broken
      2    the command line or a file is wrong, or the command starts no worker
      130  stopped by Ctrl-C; no worker is left
      143  stopped by SIGTERM; the same
    """
    from dspex_testkit.cli.conform_command import Order, list_clauses, run_conform

    with reporting(verbose=verbose):
        if list_:
            list_clauses(only or ())
            return
        order = Order(
            command=tuple(command or ()),
            profile=profile,
            known=tuple(known or ()),
            max_frame_bytes=max_frame_bytes,
            timeout=timeout,
            version=version,
            only=tuple(only or ()),
            expected_failures=expected_failures,
            junit=junit,
            html=html,
            is_verbose=verbose,
        )
        code = run_conform(order)
    raise typer.Exit(code)


@app.command()
def load(
    profile: options.LoadProfile = None,
    seconds: options.Seconds = None,
    handler: options.HandlerClass = None,
    command: options.CalledCommand = None,
    args: options.Args = None,
    workers: options.Workers = None,
    callers: options.Callers = None,
    rate: options.Rate = None,
    seed: options.Seed = 0,
    report: options.Report = None,
    json: options.Json = False,
    list_: options.ListProfiles = False,
    verbose: options.Verbose = False,
) -> None:
    """Put a named load on a pool of workers, and print latencies, throughput and growth.

    \b
      dspex-testkit load crowd --seconds 10 --rate 100 --workers 2

    \b
    Exit status:
      0    every call was answered, within the profile's bounds
      1    a call failed, or a bound was broken
      2    the command line is wrong
      3    the pool could not start
      130  stopped by Ctrl-C; no worker is left
      143  stopped by SIGTERM; the same
    """
    from dspex_testkit.cli.load_command import LoadOrder, list_profiles, put_load

    with reporting(verbose=verbose):
        if list_ or profile is None:
            list_profiles()
            return
        order = LoadOrder(
            profile=profile,
            seconds=seconds,
            handler=handler,
            command=command,
            args=args,
            workers=workers,
            callers=callers,
            rate=rate,
            seed=seed,
            as_json=json,
            report=report,
        )
        code = put_load(order)
    raise typer.Exit(code)


@app.command()
def fuzz(
    tests: options.Tests = None,
    budget: options.Budget = "10m",
    journal: options.JournalFolder = options.JOURNAL,
    seed: options.FuzzSeed = None,
    workers: options.Players = None,
    canary: options.Canary = None,
    no_canary: options.NoCanary = False,
    merge: options.Merge = False,
    verbose: options.Verbose = False,
) -> None:
    """Explore seeds of explored tests for as long as there is budget; keep the smallest example of each failure.

    \b
      dspex-testkit fuzz tests/test_pool.py --budget 10m
      dspex-testkit fuzz --merge --journal all journals/*

    Without TESTS the pool itself is fuzzed, in worlds whose settings, load and faults come from the seed.

    \b
    Exit status:
      0    nothing was found, but the canary
      1    a failure was found
      2    the command line, a file or a test is wrong
      3    the canary was missed
      130  stopped by Ctrl-C; what was found is in the journal, and no process is left
      143  stopped by SIGTERM; the same
    """
    import os

    from dspex_pool.errors import InvalidArgumentError
    from dspex_testkit.cli.fuzz_command import merge as merge_journals
    from dspex_testkit.cli.fuzz_command import run_fuzz
    from dspex_testkit.fuzz.budget import seconds_of
    from dspex_testkit.fuzz.canary import DEFAULT
    from dspex_testkit.fuzz.fuzzer import Asked
    from dspex_testkit.seeds import chosen_seed

    with reporting(verbose=verbose):
        if merge:
            code = merge_journals(tuple(map(Path, tests or ())), journal)
        else:
            try:
                seconds, chosen = seconds_of(budget), chosen_seed(seed, os.environ)
            except ValueError as error:
                raise InvalidArgumentError(str(error)) from None
            asked = Asked(
                tests=tuple(tests or ()),
                budget=seconds,
                journal=journal,
                seed=chosen,
                workers=workers or os.cpu_count() or 1,
                canary="" if no_canary else canary or DEFAULT,
            )
            code = run_fuzz(asked)
    raise typer.Exit(code)


@app.command()
def ci(
    github: options.Github = False,
    layer: options.Layers = None,
    install: options.Install = ".[test]",
    python: options.PythonVersion = "3.13",
    fuzz: options.FuzzedTests = "",
    budget: options.Budget = "10m",
) -> None:
    """Print the workflow file for a project that tests with the test kit.

    \b
      dspex-testkit ci --github > .github/workflows/tests.yml

    Each layer is a job with a time limit and a budget; chaos, stress and fuzzing run at night. Reports are kept.
    """
    from dspex_testkit.cli.ci_command import CiOrder, github_workflow
    from dspex_testkit.layers import LAYERS

    with reporting(verbose=False):
        if not github:
            raise CliError("say for whom: --github is the only one that there is")
        layers = tuple(layer or LAYERS)
        order = CiOrder(layers=layers, install=install, python=python, fuzz=fuzz, budget=budget)
        with printing():
            typer.echo(github_workflow(order), nl=False)
