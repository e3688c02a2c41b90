"""What the stress tests share: how long they may take, the pools that they load, and how they are named."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from dspex_testkit.load.profile import Profile
from dspex_testkit.load.result import LoadResult
from dspex_testkit.load.run import HasSessions

__all__ = ["ECHO", "MINUTES", "PutLoad"]

#: Minutes that the whole layer is to take, or the soak alone where it is asked for ten or more.
MINUTES: Final = float(os.environ.get("DSPEX_STRESS_MINUTES", "5"))

ECHO: Final = "dspex_testkit.children.echo:EchoHandler"

#: The fixture ``load``.
PutLoad: TypeAlias = Callable[[HasSessions, Profile], Awaitable[LoadResult]]
