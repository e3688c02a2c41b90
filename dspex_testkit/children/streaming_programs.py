"""A program that streams: ``dspex_testkit.children.streaming_programs:streamer``, for workers that allow it."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["streamer"]


def streamer() -> Any:
    """Make a program that asks its model for a stream: ``{question}`` gives ``{answer, pieces}``."""
    import dspy

    class Streamer(dspy.Module):  # type: ignore[misc] # dspy has no types
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            return asyncio.run(_collect(self.predict, question))

    return Streamer()


async def _collect(program: Any, question: str) -> Any:
    import dspy

    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    stream = dspy.streamify(program, stream_listeners=[listener])
    pieces, answer = [], None
    async for item in stream(question=question):
        if isinstance(item, dspy.Prediction):
            answer = item.answer
        elif isinstance(item, dspy.streaming.StreamResponse):
            pieces.append(item.chunk)
    return dspy.Prediction(answer=answer, pieces=pieces)
