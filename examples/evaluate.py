"""Evaluate a DSPy program on many rows, with a time limit for each, when some rows crash or hang the process."""

import itertools
import json
from collections import Counter
from pathlib import Path

from dspex_pool import SyncPool
from dspex_pool.errors import DspexPoolError

HERE = Path(__file__).parent
BUGS = [
    {"context": "", "question": "Do you crash?", "expected": ""},
    {"context": "", "question": "Do you hang?", "expected": ""},
]


def rows(count: int) -> list[dict[str, str]]:
    """Return the first ``count`` example questions, and two that meet a bug of the program among them."""
    with (HERE / "questions.jsonl").open(encoding="utf-8") as lines:
        good = [json.loads(line) for line in itertools.islice(lines, count)]
    return good[: count // 2] + BUGS + good[count // 2 :]


def main() -> None:
    verdicts: Counter[str] = Counter()
    with SyncPool(pool_size=2, worker_cwd=str(HERE), allow=("flaky_program",)) as pool:
        pool.configure_lm(model="dspex/extractive")
        pool.create_program("flaky", factory="flaky_program:make")
        asked = rows(40)
        inputs = [{name: row[name] for name in ("context", "question")} for row in asked]
        answers = pool.map("flaky", inputs, timeout=5.0, return_exceptions=True)
        for row, answer in zip(asked, answers, strict=True):
            if isinstance(answer, DspexPoolError):
                verdicts[type(answer).__name__] += 1
                print(f"{row['question']} {answer}")
            else:
                found = row["expected"].lower() in answer["outputs"]["answer"].lower()
                verdicts["right" if found else "wrong"] += 1
    print(dict(verdicts))


if __name__ == "__main__":
    main()
