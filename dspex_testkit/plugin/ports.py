"""One test body on three kinds of port: the fixtures ``pool``, ``make_pool`` and ``adapter``.

A test that asks for one of them is a coroutine function. It is run here, in a trio run and a clock of its own, and
once for each kind of port that it is for: those of its marker ``ports``, cut down to those of ``--dspex-port``;
without either, the kind of its layer.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.layers import LAYERS, dearest, names_layers_only, selected_layers
from dspex_testkit.plugin.stash import STATE
from dspex_testkit.ports.names import ALL, LAYER_OF_PORT, PORT_OF_LAYER
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from dspex_testkit.ports.run import BodyRun

__all__ = ["complaint_about_parameters", "has_seeded_order", "is_body", "port_of"]

FIXTURES = frozenset({"pool", "make_pool", "adapter"})
PARAMETER = "dspex_port"
#: Of a test: its body, before anybody wrapped it.
BODY = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    text = "Run bodies that use a pool on this kind of port instead of that of their layer."
    parser.getgroup("dspex", "layers and seeds").addoption(
        "--dspex-port", choices=[*LAYER_OF_PORT, ALL], metavar="sim|server|process|all", help=text
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    text = 'ports(*names): the kinds of port that this body can run on: "sim", "server", "process", or "all".'
    config.addinivalue_line("markers", text)
    text = (
        "pool_settings(**settings): settings of the fixture pool: those of PoolConfig, handler and commands."
    )
    config.addinivalue_line("markers", text)


# --- fixtures ----------------------------------------------------------------------------------------------


def _wanted(name: str) -> Any:
    from dspex_testkit.ports.run import WANTED

    return WANTED[name]


# They hold nothing themselves, so that one serves a whole session, and each example of Hypothesis gets its own pool.


@pytest.fixture(scope="session")
def pool() -> Any:
    """A pool of two warm workers on the kind of port of the test, opened within its trio run: a PoolHandle."""
    return _wanted("pool")


@pytest.fixture(scope="session")
def make_pool() -> Any:
    """Make further pools within the test: ``other = await make_pool(pool_size=4)``; each is closed at its end."""
    return _wanted("make_pool")


@pytest.fixture(scope="session")
def adapter() -> Any:
    """An Adapter on the kind of port of the test: Mock, BridgeMock, or a PythonPool of real DSPy workers."""
    return _wanted("adapter")


# --- which kinds of port -------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test that uses our fixtures once for each kind of port that it is for."""
    if FIXTURES.isdisjoint(metafunc.fixturenames) or not _asks_us(metafunc):
        return
    _refuse_wrong_settings(metafunc.definition)
    able, config = _able(metafunc.definition, metafunc.config), metafunc.config
    ports = _chosen(able, config)
    metafunc.fixturenames.append(PARAMETER)
    if ports:
        metafunc.parametrize(PARAMETER, _asked_for(ports, metafunc.definition, config))
        return
    reason = f"not made for --dspex-port={config.getoption('--dspex-port')}, only for {', '.join(able)}"
    metafunc.parametrize(PARAMETER, [pytest.param(None, marks=pytest.mark.skip(reason), id="no-port")])


def _asked_for(ports: list[str], definition: pytest.Item, config: pytest.Config) -> list[str]:
    """Leave out the kinds whose tests ``-m`` would throw away again, unless that would be all."""
    expression = config.option.markexpr
    if not names_layers_only(expression):
        return ports
    declared, selected = _declared_layer(definition, config) or None, selected_layers(expression)
    return [port for port in ports if dearest(declared, LAYER_OF_PORT[port]) in selected] or ports


def _asks_us(metafunc: pytest.Metafunc) -> bool:
    """Tell whether the fixture that the test would get is ours: somebody may have one of the same name."""
    definitions = getattr(metafunc, "_arg2fixturedefs", {})
    return any(
        definitions[name][-1].func.__module__ == __name__ for name in FIXTURES if definitions.get(name)
    )


def _able(definition: pytest.Item, config: pytest.Config) -> list[str]:
    """Return the kinds that a body is for."""
    marker = definition.get_closest_marker("ports")
    if marker is not None:
        return _expanded(marker, definition)
    if config.getoption("--dspex-port") is not None:
        return list(LAYER_OF_PORT)
    return [PORT_OF_LAYER.get(_declared_layer(definition, config), "sim")]


def _chosen(able: list[str], config: pytest.Config) -> list[str]:
    """Cut kinds down to what the command line asks for."""
    chosen = config.getoption("--dspex-port")
    return [port for port in able if chosen in (None, port, ALL)]


def _expanded(marker: pytest.Mark, definition: pytest.Item) -> list[str]:
    names, known = marker.args, [*LAYER_OF_PORT, ALL]
    unknown = [name for name in (*names, *marker.kwargs.values()) if name not in known]
    if unknown or marker.kwargs or not names:
        what = f"no kind of port {unknown}" if unknown else 'ports(*names) takes names, such as ports("all")'
        raise pytest.Collector.CollectError(f"{definition.nodeid}: {what}; there are {', '.join(known)}")
    return [port for port in LAYER_OF_PORT if port in names or ALL in names]


def _refuse_wrong_settings(definition: pytest.Item) -> None:
    for marker in definition.iter_markers("pool_settings"):
        if marker.args:
            text = f"pool_settings takes its settings by name, such as pool_size=4, not {marker.args[0]!r}"
            raise pytest.Collector.CollectError(f"{definition.nodeid}: {text}")
        from dspex_pool.config import PoolConfig
        from dspex_pool.config.settings import settings_of
        from dspex_testkit.ports.pool_settings import check_further_settings, check_names

        try:
            known = settings_of(PoolConfig)
            check_names(marker.kwargs, "pool_settings")
            for name, value in marker.kwargs.items():
                if name in known:
                    known[name].check(value, "pool_settings")
            check_further_settings(marker.kwargs)
        except ValueError as error:
            raise pytest.Collector.CollectError(f"{definition.nodeid}: {error}") from None


def _settings_of(item: pytest.Item) -> dict[str, Any]:
    """Return what all markers set together; where several set the same, the nearest to the test holds."""
    settings: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("pool_settings"))):
        settings |= marker.kwargs
    return settings


def _declared_layer(definition: pytest.Item, config: pytest.Config) -> str:
    marked = [mark.name for mark in definition.iter_markers() if mark.name in LAYERS]
    if marked:
        return marked[0]
    root = config.stash[STATE].root
    if not definition.path.is_relative_to(root):
        return ""
    return config.stash[STATE].folders.layer_of(definition.path.relative_to(root)) or ""


# --- running -------------------------------------------------------------------------------------------------


def is_body(item: pytest.Item) -> bool:
    """Tell whether a test is one of ours, though it may be for none of the kinds that are asked for."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and PARAMETER in callspec.params


def port_of(item: pytest.Item) -> str | None:
    """Return the kind of port that a test runs on, if it is one of ours and runs at all."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(PARAMETER)


def has_seeded_order(item: pytest.Item) -> bool:
    """Tell whether the run's seed decides the order of a test's tasks; Hypothesis draws that of its examples."""
    return port_of(item) == "sim" and not hasattr(getattr(item, "obj", None), "hypothesis")


def complaint_about_parameters(item: pytest.Item) -> str:
    """Return what marks of a parameter promise and cannot keep: ports are chosen before parameters are known."""
    if (port := port_of(item)) is None:
        return ""
    marks = {mark.name for mark in getattr(item, "callspec").marks}  # noqa: B009 - of functions alone
    end = f", so this would run on {port}; mark the test"
    if "ports" in marks:
        return f"{item.nodeid}: ports on a parameter has no effect{end}"
    layers = [name for name in LAYERS if name in marks and PORT_OF_LAYER.get(name) != port]
    if layers and item.get_closest_marker("ports") is None and item.config.getoption("--dspex-port") is None:
        return f"{item.nodeid}: the layer {layers[0]} of a parameter chooses no port{end}"
    return ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Load what bodies run in before they are held to their layers: trio's import runs a program."""
    if not session.config.option.collectonly and any(port_of(item) for item in session.items):
        from dspex_testkit.ports import run  # noqa: F401 - loaded


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keep the body before others wrap it to run it in their own way."""
    if port_of(item) is not None:
        item.stash[BODY] = getattr(item, "obj", None)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a body of ours."""
    port = port_of(pyfuncitem)
    if port is None:
        return None
    body = pyfuncitem.stash[BODY]
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names if name != PARAMETER}
    _refuse_foreign(pyfuncitem, arguments)
    from dspex_testkit.hangs.alarm import BodyHungError
    from dspex_testkit.ports.run import BodyRun

    seed = _seed_of(pyfuncitem)
    run = BodyRun(port, settings=_settings_of(pyfuncitem), seed=seed)
    try:
        with _order(pyfuncitem, seed):
            _run(run, body, arguments)
    except BodyHungError as error:
        pytest.fail(str(error), pytrace=False)
    return True


def _seed_of(item: pytest.Item) -> int:
    """Draw the seed of a test from that of the run."""
    return random_of(item.config.stash[STATE].seed, f"{item.nodeid} order").getrandbits(32)


def _order(item: pytest.Item, seed: int) -> contextlib.AbstractContextManager[None]:
    """Have the test's seed decide who runs first, where that can be had again."""
    if not has_seeded_order(item):
        return contextlib.nullcontext()
    from dspex_testkit.trio_seam import order_of_tasks

    return order_of_tasks(seed)


def _run(run: BodyRun, body: Any, arguments: dict[str, Any]) -> None:
    if (given := getattr(body, "hypothesis", None)) is not None:
        # Loaded before Hypothesis draws, whose health check takes slow imports for slow data.
        from dspex_testkit.simulation.examples import drawn_schedule

        inner = given.inner_test

        def run_example(**drawn: Any) -> None:
            # On the simulated port an example has a schedule of its own, which is drawn with it.
            with drawn_schedule() if run.port == "sim" else contextlib.nullcontext():
                run.run(inner, drawn)

        given.inner_test = run_example
        try:
            body(**arguments)
        finally:
            given.inner_test = inner
    elif inspect.iscoroutinefunction(body):
        run.run(body, arguments)
    else:
        pytest.fail("a test that uses pool, make_pool or adapter is an async function", pytrace=False)


def _refuse_foreign(item: pytest.Function, arguments: dict[str, Any]) -> None:
    """Say what cannot be had beside our fixtures: other clocks, and fixtures that need somebody else's run."""
    for name, value in arguments.items():
        kinds = {kind.__name__ for kind in type(value).__mro__}
        if kinds & {"Clock", "TrioFixture"}:
            pytest.fail(
                f"{item.nodeid}: {name} does not go with pool, make_pool and adapter, which bring a trio run and a "
                "clock of their own",
                pytrace=False,
            )
