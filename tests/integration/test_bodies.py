"""Most of the pool's own test bodies run on every kind of port, and the rest says why it does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests import bodies

pytestmark = pytest.mark.integration


def test_most_bodies_run_on_every_kind_of_port() -> None:
    """At least seven of ten do; the list is printed with the failure."""
    found = bodies.bodies()
    assert len(found) > 100
    assert bodies.share(found) >= bodies.WANTED_SHARE, bodies.report()


def test_every_body_that_stays_on_one_kind_has_a_reason() -> None:
    """The tables name the modules that need it, and no others."""
    kept = {body.module for body in bodies.bodies() if not body.is_on_all}
    assert kept == set(bodies.REASONS)
    assert all((bodies.ROOT / module).exists() for module in bodies.OTHER_SUBJECTS)


def test_bodies_that_are_counted_as_such_open_a_pool_on_each_kind() -> None:
    """What the list calls a body on all kinds is collected once for each of them, by pytest itself."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:faker", "tests/pool"]
    listed = subprocess.run(command, cwd=bodies.ROOT, capture_output=True, text=True, check=True).stdout
    kinds: dict[tuple[str, str], set[str]] = {}
    for line in listed.splitlines():
        module, _, test = line.partition("::")
        if test:
            name, _, parameters = test.partition("[")
            kinds.setdefault((module, name), set()).update(parameters.rstrip("]").split("-"))
    on_all = [(body.module, body.name) for body in bodies.bodies() if body.is_on_all]
    missing = [key for key in on_all if not kinds.get(key, set()) >= {"sim", "server", "process"}]
    assert not missing, textwrap.shorten(str(missing), 500)
