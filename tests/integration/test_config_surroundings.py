"""The configuration in surroundings that are not its own: other people's variables, and folders of other users."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dspex_pool.config import PoolConfig
from dspex_pool.errors import InvalidConfigError
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration


@pytest.fixture
def _forbidden_folder() -> Iterator[None]:
    """Be in a folder that one may not enter, as a service of an ordinary user is that root starts from its home."""
    user, before = os.geteuid(), Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        Path(name).chmod(0)
        if user == 0:
            os.seteuid(65534)
        yield
        os.seteuid(user)
        Path(name).chmod(0o700)
        os.chdir(before)


@pytest.mark.usefixtures("_forbidden_folder")
def test_folder_that_cannot_be_entered_has_no_settings() -> None:
    """No pool could be made there: the look for a pyproject.toml nobody had spoken of ended in a PermissionError."""
    assert PoolConfig.load(environ={}) == PoolConfig()
    with pytest.raises(InvalidConfigError, match="Permission denied"):
        PoolConfig.load(file="pyproject.toml", environ={})


def test_variables_of_services_with_longer_names_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a service "dspex-pool-web" of Kubernetes no pool could be made: its variables were refused."""
    monkeypatch.chdir(tmp_path)
    for variable in (
        "DSPEX_POOL_WEB_SERVICE_HOST",
        "DSPEX_POOL_WEB_SERVICE_PORT",
        "DSPEX_POOL_WEB_SERVICE_PORT_HTTP",
        "DSPEX_POOL_WEB_PORT",
        "DSPEX_POOL_WEB_2_PORT_80_TCP",
        "DSPEX_POOL_WEB_2_PORT_80_TCP_ADDR",
    ):
        with case(variable):
            assert PoolConfig.load(environ={variable: "tcp://10.0.0.1:80"}) == PoolConfig()
    for variable in ("DSPEX_POOL_REPORT", "DSPEX_POOL_PORT_OF_CALL"):
        with case(variable), pytest.raises(InvalidConfigError, match=variable):
            PoolConfig.load(environ={variable: "1"})
