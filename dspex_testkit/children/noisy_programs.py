"""A DSPy program that writes wherever it can: ``dspex_testkit.children.noisy_programs:noisy``.

Start the worker with ``--allow dspex_testkit.children.noisy_programs``. DSPy is imported when it is made.
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from typing import Any

__all__ = ["FLOOD_LINE", "noisy"]

#: One line of the flood, 1000 bytes with its end.
FLOOD_LINE = "flood ".ljust(999, ".")


def noisy() -> Any:
    """Make a program that needs no model: ``{text, flood_lines}`` gives ``{loud}``, amid a lot of noise.

    It prints from Python and from C, lets one grandchild print and another print later, logs one record, and
    writes ``flood_lines`` lines of 1000 bytes to stderr.
    """
    import dspy

    class Noisy(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self, text: str, flood_lines: int) -> Any:
            print(f"python prints {text}")
            print(f"python complains about {text}", file=sys.stderr)
            _print_from_c(f"C prints {text}\n")
            subprocess.run(["/bin/sh", "-c", 'echo "a grandchild prints $0"', text], check=True)
            subprocess.Popen(["/bin/sh", "-c", 'sleep 0.2; echo "a grandchild prints $0 late"', text])
            logging.getLogger("noisy").info("a record about %s", text)
            for _ in range(flood_lines):
                sys.stderr.write(f"{FLOOD_LINE}\n")
            return dspy.Prediction(loud=text.upper())

    return Noisy()


def _print_from_c(text: str) -> None:
    libc = ctypes.CDLL(None)
    libc.printf(b"%s", text.encode())
    libc.fflush(None)
