"""``python -m dspex_testkit.cli``: the commands where no script is installed."""

from __future__ import annotations

from dspex_testkit.cli import main

if __name__ == "__main__":
    main()
