"""Every fault of the broken worker, as the table of the integration layer has only some of them."""

from __future__ import annotations

import pytest

from dspex_testkit.conform.bench import Outcome
from tests.faulty_workers import MORE_BLAMED, findings_of

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("fault", MORE_BLAMED)
def test_fault_is_found_by_the_clauses_that_name_it_soak(fault: str) -> None:
    """Each broken worker breaks exactly the clauses that its fault concerns."""
    assert findings_of(fault).ids(Outcome.FAILED) == set(MORE_BLAMED[fault].split())
