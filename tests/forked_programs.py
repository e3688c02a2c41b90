"""A template whose forks run any program, for tests of the port alone: ``python -m tests.forked_programs``.

``FORKED_SOURCE`` in the environment is the program's text; without it, ``FORKED_SERVER`` has the arguments of a mock
server, as JSON.
"""

from __future__ import annotations

import json
import os
import sys

from dspex_pool.bridge.template import Template, claim_socket

__all__ = ["command_of_template"]


def command_of_template(*_ignored: object) -> list[str]:
    """Return the command of this template, in the place of ``SubprocessOptions.template_command``."""
    return [sys.executable, "-m", __name__]


class Programs(Template):
    """A template that needs no handler."""

    def _warm_up(self, name: str) -> None:
        if "FORKED_SERVER" in os.environ:
            import dspex_testkit.bridge_mock_server

            assert dspex_testkit.bridge_mock_server


def main() -> None:
    """Serve the pool; in each fork, run the program."""
    template = Programs(claim_socket())
    template.prepare("")
    _, lifeline = template.serve()
    # A program of its own has none, as if it was started.
    os.close(lifeline)
    if "FORKED_SOURCE" in os.environ:
        program = compile(os.environ["FORKED_SOURCE"], "forked source", "exec")
        exec(program, {"__name__": "__main__"})
        return
    from dspex_testkit.bridge_mock_server import main as serve

    sys.exit(serve(json.loads(os.environ["FORKED_SERVER"])))


if __name__ == "__main__":
    main()
