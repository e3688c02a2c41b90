"""What a pool tells a worker by its environment."""

from __future__ import annotations

from typing import Final

__all__ = ["LIFELINE_VARIABLE", "PATH_VARIABLE"]

#: Variable with the number of the descriptor that is the worker's end of its lifeline: a pipe whose other end the
#: pool holds as long as the worker may live.
LIFELINE_VARIABLE: Final = "DSPEX_WORKER_LIFELINE"

#: Variable with the folders and archives in which the program that has the pool looks for modules, separated as in
#: ``PYTHONPATH``. A worker looks there after it has looked in its own.
PATH_VARIABLE: Final = "DSPEX_WORKER_PATH"
