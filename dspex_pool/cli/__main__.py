"""``python -m dspex_pool.cli``: the commands where no script is installed."""

from __future__ import annotations

from dspex_pool.cli import main

if __name__ == "__main__":
    main()
