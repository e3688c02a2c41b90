"""The worker process as a program: arguments, and the parts put together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.command_line import parse_arguments
from dspex_pool.bridge.core_commands import CoreCommands
from dspex_pool.bridge.handler import HandlerContext, commands_of, import_named
from dspex_pool.bridge.importing import importing
from dspex_pool.bridge.interrupts import Interrupts
from dspex_pool.bridge.lifeline import hang_on, inherited_lifeline
from dspex_pool.bridge.logs import RequestLog, RequestScope
from dspex_pool.bridge.loop import Loop
from dspex_pool.bridge.outlet import Outlet
from dspex_pool.bridge.places import look_where_the_pool_looks
from dspex_pool.bridge.process import (
    EXIT_USAGE,
    Process,
    claim_wires,
    hear_signals,
    limit_library_threads,
    release_in_forks,
)
from dspex_pool.bridge.reader import Reader
from dspex_pool.bridge.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from dspex_pool.bridge.command_line import Arguments
    from dspex_pool.bridge.process import Wires

__all__ = ["main", "run"]


def main(words: Sequence[str] | None = None) -> None:
    """Run the worker until its client leaves."""
    look_where_the_pool_looks()
    run(parse_arguments(sys.argv[1:] if words is None else words), inherited_lifeline())


def run(arguments: Arguments, lifeline: int | None) -> NoReturn:
    """Run the worker that ``parse_arguments`` has read of, until its client leaves.

    Args:
        arguments: The command line.
        lifeline: The descriptor whose end ends the worker, if it was given one.
    """
    process, interrupts = Process(), Interrupts()
    try:
        wires = claim_wires()
    except OSError as error:
        process.end(
            EXIT_USAGE, f"dspex_pool.bridge: stdin and stdout carry the protocol, but are not open: {error}"
        )
    process.install()
    interrupts.install()
    hear_signals()
    process.lead_session()
    if lifeline is not None:
        hang_on(lifeline)
    release_in_forks(wires)
    limit_library_threads()
    reader = Reader(process, wires, max_frame_bytes=arguments.max_frame_bytes)
    reader.start()
    _serve(arguments, process, interrupts, wires, reader)
    process.end(0)


def _serve(
    arguments: Arguments,
    process: Process,
    interrupts: Interrupts,
    wires: Wires,
    reader: Reader,
) -> None:
    outlet = Outlet(wires.stdout, process, interrupts, max_frame_bytes=arguments.max_frame_bytes)
    outlet.fall_silent_in_forks()
    scope, secrets = RequestScope(), Secrets()
    log = RequestLog(outlet.event, scope, secrets, arguments.worker_id)
    log.install()
    context = HandlerContext(
        mode=arguments.mode,
        worker_id=arguments.worker_id,
        allow=tuple(arguments.allow),
        secrets=secrets,
        emit=outlet.event,
        shield=interrupts.shield,
        protocol=lambda: outlet.version,
    )
    core = CoreCommands(context)
    handler, commands = _load_handler(arguments.handler, context, core, process)
    loop = Loop(process, outlet, interrupts, log, scope)
    loop.serve(reader, commands, context, getattr(handler, "error_facts", None))


def _load_handler(
    name: str, context: HandlerContext, core: CoreCommands, process: Process
) -> tuple[Any, dict[str, Any]]:
    # Who writes the command line may run any code anyway; the allow-list is for names that requests bring.
    try:
        with importing():
            kind = import_named(name, argument="handler")
        handler = kind(context)
        commands = commands_of(handler, core.commands)
    except Exception as error:
        process.end(EXIT_USAGE, f"dspex_pool.bridge: the handler {name} cannot be used: {error!r}")
    core.serve(handler)
    return handler, commands


if __name__ == "__main__":
    main()
