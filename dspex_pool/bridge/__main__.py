"""The worker process as a program: arguments, and the parts put together."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.core_commands import CoreCommands
from dspex_pool.bridge.handler import HandlerContext, commands_of, import_named
from dspex_pool.bridge.interrupts import Interrupts
from dspex_pool.bridge.logs import RequestLog, RequestScope
from dspex_pool.bridge.loop import Loop
from dspex_pool.bridge.outlet import Outlet
from dspex_pool.bridge.process import (
    EXIT_USAGE,
    Process,
    claim_wires,
    limit_library_threads,
    release_in_forks,
)
from dspex_pool.bridge.reader import Reader
from dspex_pool.bridge.secrets import Secrets
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from dspex_pool.bridge.process import Wires

__all__ = ["main", "parse_arguments", "run"]

DEFAULT_HANDLER = "dspex_pool.bridge.dspy_handler:DspyHandler"
# Every failure fits this, whatever it has to say.
MIN_MAX_FRAME_BYTES = 1024


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; end the process with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m dspex_pool.bridge",
        description="Serve one client: frames of a 4-byte length and a JSON object, on stdin and stdout.",
    )
    parser.add_argument("--mode", choices=("standalone", "pool-worker"), default="standalone")
    parser.add_argument("--worker-id", metavar="ID", help="name of this worker, told in answers and logs")
    parser.add_argument(
        "--handler", metavar="PACKAGE.MODULE:CLASS", default=DEFAULT_HANDLER, help="what serves the commands"
    )
    parser.add_argument(
        "--allow",
        metavar="PREFIX",
        action="append",
        default=[],
        help="module whose functions requests may name, as factories and tools; with all modules below it",
    )
    parser.add_argument(
        "--max-frame-bytes",
        metavar="N",
        type=frame_limit,
        default=DEFAULT_MAX_FRAME_BYTES,
        help="largest payload",
    )
    return parser.parse_args(words)


def frame_limit(word: str) -> int:
    """Read the size of the largest payload, in bytes."""
    limit = int(word)
    if not MIN_MAX_FRAME_BYTES <= limit < 2**32:
        raise argparse.ArgumentTypeError(f"{word} is not between {MIN_MAX_FRAME_BYTES} and {2**32 - 1}")
    return limit


def main(words: Sequence[str] | None = None) -> None:
    """Run the worker until its client leaves."""
    run(parse_arguments(sys.argv[1:] if words is None else words))


def run(arguments: argparse.Namespace) -> NoReturn:
    """Run the worker that ``parse_arguments`` has read of, until its client leaves."""
    process, interrupts = Process(), Interrupts()
    try:
        wires = claim_wires()
    except OSError as error:
        process.end(
            EXIT_USAGE, f"dspex_pool.bridge: stdin and stdout carry the protocol, but are not open: {error}"
        )
    process.install()
    interrupts.install()
    process.lead_session()
    release_in_forks(wires)
    limit_library_threads()
    reader = Reader(process, wires, max_frame_bytes=arguments.max_frame_bytes)
    reader.start()
    _serve(arguments, process, interrupts, wires, reader)
    process.end(0)


def _serve(
    arguments: argparse.Namespace,
    process: Process,
    interrupts: Interrupts,
    wires: Wires,
    reader: Reader,
) -> None:
    outlet = Outlet(wires.stdout, process, interrupts, max_frame_bytes=arguments.max_frame_bytes)
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
        handler = import_named(name, argument="handler")(context)
        commands = commands_of(handler, core.commands)
    except Exception as error:
        process.end(EXIT_USAGE, f"dspex_pool.bridge: the handler {name} cannot be used: {error!r}")
    core.serve(handler)
    return handler, commands


if __name__ == "__main__":
    main()
