"""Handlers: their commands, and names that lead to code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.bridge.core_commands import CoreCommands
from dspex_pool.bridge.handler import (
    Handler,
    HandlerContext,
    command,
    commands_of,
    import_allowed,
    import_named,
)
from dspex_pool.bridge.versions import installed_version, is_installed
from dspex_pool.errors import InvalidArgumentError
from tests.cases import case

if TYPE_CHECKING:
    from pathlib import Path


class Greeter(Handler):
    """A handler with one command."""

    @command
    def greet(self, args: dict[str, Any]) -> str:
        """Greet somebody."""
        return f"Hello, {args['name']}!"

    def not_a_command(self) -> None:
        """Stay inside."""


class Plain:
    """A handler without a base class or hooks."""

    def __init__(self) -> None:
        self.commands = {"double": lambda args: 2 * args["n"]}


def test_marked_methods_are_the_commands() -> None:
    """Nothing else of the class can be called from outside."""
    commands = Greeter(HandlerContext()).commands
    assert list(commands) == ["greet"]
    assert commands["greet"]({"name": "you"}) == "Hello, you!"


def test_base_handler_adds_nothing() -> None:
    """Its hooks have neutral answers, and its context does nothing by itself."""
    handler = Greeter(HandlerContext())
    assert (handler.ping_facts(), handler.statistics(), handler.error_facts(ValueError())) == ({}, {}, {})
    assert handler.close() is None
    assert handler.context.emit("log", {}) is False
    assert handler.context.protocol() == 1
    with handler.context.shield():
        pass


def test_any_class_with_a_table_is_a_handler() -> None:
    """The base class is a convenience."""
    core = CoreCommands(HandlerContext(worker_id="w-1"))
    handler = Plain()
    core.serve(handler)
    commands = commands_of(handler, core.commands)
    assert sorted(commands) == ["double", "get_stats", "ping", "shutdown"]
    assert commands["double"]({"n": 4}) == 8
    assert commands["ping"]({})["status"] == "ok"
    assert commands["shutdown"]({})["sessions_cleaned"] == 0


def test_handler_without_a_table_is_refused() -> None:
    """Its commands must be named somewhere."""
    with pytest.raises(InvalidArgumentError, match="no mapping named 'commands'"):
        commands_of(object(), {})


def test_handler_cannot_replace_what_every_worker_has() -> None:
    """The handshake must mean the same everywhere."""
    handler = Plain()
    handler.commands["ping"] = handler.commands["double"]
    with pytest.raises(InvalidArgumentError, match="defines ping"):
        commands_of(handler, CoreCommands(HandlerContext()).commands)


def test_name_leads_to_code() -> None:
    """``package.module:attribute``, one attribute deep."""
    assert import_named("dspex_pool.bridge.handler:Handler", argument="handler") is Handler


def test_name_that_leads_nowhere_is_refused() -> None:
    """The error repeats the name and says where it was given."""
    cases: list[str] = [
        "", ":", "os", "os:", ":getcwd", "os:path.join", "os path:join", "os:no_such", "no_such_module:x", "../os:x",
        "os:getcwd()", "a..b:c", "os:path:join",
    ]  # fmt: skip
    for name in cases:
        with case(name):
            with pytest.raises(InvalidArgumentError, match="factory") as caught:
                import_named(name, argument="factory")
            assert caught.value.argument == "factory"
            assert repr(name) in caught.value.message


@pytest.mark.parametrize(
    "allow", [["dspex_pool"], ["other", "dspex_pool.bridge"], ["dspex_pool.bridge.handler"]]
)
def test_prefix_allows_its_module_and_all_below(allow: list[str]) -> None:
    """A prefix is a whole dotted name."""
    assert import_allowed("dspex_pool.bridge.handler:Handler", allow, argument="factory") is Handler


def test_what_is_not_on_the_list_is_not_imported() -> None:
    """Requests reach only code that whoever started the worker has named."""
    cases: list[list[str]] = [[], ["dspex"], ["dspex_pool.bridge.hand"], ["dspex_pool.bridge.handler.deeper"]]
    for allow in cases:
        with case(allow):
            with pytest.raises(InvalidArgumentError, match="not on the allow-list") as caught:
                import_allowed("dspex_pool.bridge.handler:Handler", allow, argument="factory")
            assert "--allow dspex_pool.bridge.handler" in caught.value.message


def test_versions_are_found_without_importing() -> None:
    """From the names of what is installed; nothing for what is not."""
    assert installed_version("msgspec")
    assert installed_version("no_such_distribution") is None
    assert is_installed("msgspec")
    assert not is_installed("no_such_module")


def test_path_that_is_no_folder_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Import paths may name archives, and what is not there; the first folder with the distribution counts."""
    archive = tmp_path / "packages.zip"
    archive.touch()
    for version in ("2.0", "1.0"):
        (tmp_path / version / f"hardly_installed-{version}.dist-info").mkdir(parents=True)
    paths = ["", "/no/such/folder", str(archive), str(tmp_path / "2.0"), str(tmp_path / "1.0")]
    monkeypatch.setattr("sys.path", paths)
    assert installed_version("hardly_installed") == "2.0"
    assert installed_version("surely_not_installed") is None


def test_memory_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no /proc, the peak is told."""
    from dspex_pool.bridge import core_commands

    monkeypatch.setattr(core_commands, "STATUS_FILE", "/no/such/file")
    usage = core_commands.memory_usage()
    assert usage["rss"] == usage["vms"] > 0
    assert 0 < usage["percent"] < 100
