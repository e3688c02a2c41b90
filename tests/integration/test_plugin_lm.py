"""The fixtures of the plugin for language models and fake data, in a small project of its own."""

from __future__ import annotations

from textwrap import dedent

import pytest

from dspex_testkit.fakes import faker_of  # before pytester's runs, each of which would import it anew

pytestmark = pytest.mark.integration

QUIET = ("-p", "no:faker", "-p", "no:cacheprovider", "--dspex-seed=7")


def test_leftovers_of_a_script_fail_the_test(pytester: pytest.Pytester) -> None:
    """Both models are checked when the test is over, and the complaint names what is left."""
    pytester.makepyfile(
        dedent("""
        def test_server(lm_server):
            lm_server.script.reply("never asked for")

        def test_engine(scripted_lm):
            scripted_lm.script.rate_limit(times=1)

        def test_well(lm_server, scripted_lm):
            lm_server.script.otherwise("whatever")
        """)
    )
    result = pytester.runpytest_inprocess(*QUIET)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines_random(["*not asked for: the answer 'never asked for'*", "*with status 429*"])


def test_fake_data_does_not_depend_on_the_order(pytester: pytest.Pytester) -> None:
    """A test gets the same alone, among others, and after them: what seed and name give."""
    pytester.makepyfile(
        test_fakes=dedent("""
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(dspex_faker, number):
            print("drawn", number, dspex_faker.session_id(), dspex_faker.name())
        """)
    )
    names = [f"test_fakes.py::test_it[{number}]" for number in (2, 0, 1)]

    def drawn(*arguments: str) -> set[str]:
        result = pytester.runpytest_inprocess("-s", *QUIET, *arguments)
        return {line[line.index("drawn") :] for line in result.outlines if "drawn" in line}

    def expected(name: str) -> str:
        faker = faker_of(7, name)
        return f"drawn {name[-2]} {faker.session_id()} {faker.name()}"

    everything = {expected(name) for name in names}
    assert drawn() == drawn(*names) == everything
    assert drawn(names[0]) == {expected(names[0])}
