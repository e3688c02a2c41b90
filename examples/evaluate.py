"""Evaluate a DSPy program with ``dspy.Evaluate``, with a time limit for each row, when rows crash or hang it."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import dspy

from dspex_pool import SyncPool
from dspex_pool.errors import DspexPoolError

HERE = Path(__file__).parent
BUGS = [
    {"context": "", "question": "Do you crash?", "expected": ""},
    {"context": "", "question": "Do you hang?", "expected": ""},
]


def rows(count: int) -> list[dspy.Example]:
    """Return the first ``count`` example questions, and two that meet a bug of the program among them."""
    with (HERE / "questions.jsonl").open(encoding="utf-8") as lines:
        good = [json.loads(line) for line in itertools.islice(lines, count)]
    rows = good[: count // 2] + BUGS + good[count // 2 :]
    return [dspy.Example(**row).with_inputs("context", "question") for row in rows]


def is_right(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
    """Tell whether the answer has in it what was expected."""
    return example.expected.lower() in prediction.answer.lower()


def main() -> None:
    failures: Counter[str] = Counter()
    dspy.disable_logging()  # it would tell each failed row once more
    with SyncPool(pool_size=2, allow=("flaky_program",)) as pool:
        pool.configure_lm(model="dspex/extractive")
        pool.create_program("flaky", factory="flaky_program:make")

        def program(**inputs: Any) -> dspy.Prediction:
            """Stand in for ``flaky_program.make()``: the same call, in a worker."""
            try:
                return dspy.Prediction(**pool.execute_program("flaky", inputs, timeout=5.0)["outputs"])
            except DspexPoolError as error:
                failures[type(error).__name__] += 1
                print(f"{inputs['question']} {error}")
                raise

        evaluate = dspy.Evaluate(devset=rows(40), metric=is_right, num_threads=2)
        score = evaluate(program).score
    print(f"{score} % right; failed: {dict(failures)}")


if __name__ == "__main__":
    main()
