"""A DSPy program with two bugs, for ``evaluate.py``: one question crashes its process, another one never ends."""

import ctypes
import time

import dspy


class FlakyProgram(dspy.Module):
    """Answers questions, except where it meets one of its bugs."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("context, question -> answer")

    def forward(self, context: str, question: str) -> dspy.Prediction:
        """Answer ``question`` from ``context``."""
        if "crash" in question:
            ctypes.string_at(0)
        if "hang" in question:
            time.sleep(3600)
        return self.answer(context=context, question=question)


def make() -> FlakyProgram:
    """Return the program; the pool's workers call this."""
    return FlakyProgram()
