"""``dspex-pool config``: the effective settings and where each came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dspex_pool.config import PoolConfig

__all__ = ["print_config"]


def print_config(config: PoolConfig, *, as_json: bool) -> None:
    """Print every setting on the standard output, as a table or as a JSON array.

    The JSON has one ``{key, value, source, doc}`` for each setting.
    """
    rows = config.describe()
    if as_json:
        found = [{"key": r.key, "value": r.value, "source": r.source, "doc": r.doc} for r in rows]
        typer.echo(json.dumps(found, indent=2))
        return
    # Values are shown as --set takes numbers, words and lists; none is what nobody has set.
    table = [(row.key, "none" if row.value is None else json.dumps(row.value), row.source) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(2)]
    for key, value, source in table:
        typer.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip())
