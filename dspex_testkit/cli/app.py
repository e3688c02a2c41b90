"""The commands as the shell sees them: names, options, help. The work is done in modules loaded on demand."""

import typer

from dspex_pool.cli.group import CommandGroup
from dspex_pool.cli.problems import reporting
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
