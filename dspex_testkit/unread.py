"""Frames that a worker sent and nobody read."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dspex_pool.errors import DspexPoolError

if TYPE_CHECKING:
    from dspex_pool.protocol.framing import FrameDecoder

__all__ = ["whole_frames"]


def whole_frames(decoder: FrameDecoder) -> int:
    """Take the whole frames out of ``decoder`` and count them; bytes that can be no frame are none."""
    count = 0
    with contextlib.suppress(DspexPoolError):
        while decoder.next_frame() is not None:
            count += 1
    return count
