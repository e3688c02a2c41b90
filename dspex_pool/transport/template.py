"""Workers that are forked from one warm process: a factory of ports that keeps a template."""

from __future__ import annotations

import math
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Self

import trio

from dspex_pool.background import Background
from dspex_pool.errors import InvalidConfigError, WorkerStartError
from dspex_pool.logs import PoolLog
from dspex_pool.transport.options import SubprocessOptions
from dspex_pool.transport.stderr_drain import ForgivingHandler
from dspex_pool.transport.subprocess import SubprocessPort
from dspex_pool.transport.template_process import TemplateLostError, TemplateProcess

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TemplatePortFactory"]

_LOG = PoolLog("dspex_pool.transport")

# A template that dies just now is replaced, and the next one is asked. A third would die of the same.
_TRIES = 2

# What a template is made of, by module: Linux 5.3 has all of it, with Python 3.11.
_NEEDED = (
    (os, "pidfd_open"),
    (signal, "pidfd_send_signal"),
    (socket, "SOCK_SEQPACKET"),
    (socket, "send_fds"),
)


class TemplatePortFactory:
    """Forks worker processes from a template: ``async with TemplatePortFactory() as ports``.

    The template imports the handler and what it needs, once, and is started with the first worker. When it dies, it
    is replaced, at once if it has forked any, else with the next worker; those that it has forked live on. A pool
    that is given the factory enters it.

    Args:
        options: How to start workers. They run the bridge: ``command`` is not taken.
        on_stderr_line: As for ``SubprocessPortFactory``; the template's own lines come from ``template``.
        warm_up_timeout: Seconds after which a template that cannot fork yet, because an import hangs, is replaced.

    Raises:
        InvalidConfigError: This system lacks what a template needs, or the options have a ``command``.
    """

    def __init__(
        self,
        options: SubprocessOptions | None = None,
        *,
        on_stderr_line: Callable[[str, str], None] | None = None,
        warm_up_timeout: float = math.inf,
    ) -> None:
        #: Seconds that a template has until it can fork.
        self.warm_up_timeout = warm_up_timeout
        self._options = _checked(options or SubprocessOptions())
        self._on_stderr_line = None if on_stderr_line is None else ForgivingHandler(on_stderr_line)
        self._background = Background()
        self._nursery: trio.Nursery | None = None
        self._is_closed = False
        self._template: TemplateProcess | None = None
        self._running: set[TemplateProcess] = set()

    @property
    def options(self) -> SubprocessOptions:
        """How workers are started. Setting it renews the template."""
        return self._options

    @options.setter
    def options(self, options: SubprocessOptions) -> None:
        self._options = _checked(options)
        self.renew()

    @property
    def template_pid(self) -> int | None:
        """Process id of the template that would be asked next, if it is started."""
        return None if self._template is None else self._template.pid

    def renew(self) -> None:
        """Fork all further workers from a new template; the present one ends when its workers are reaped."""
        if self._template is not None:
            self._template.retire()
            self._template = None

    # Protected from Ctrl-C: what is begun must be known to whoever ends it.
    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise WorkerStartError("a factory with a template serves one pool, and once. Make a new one.")
        self._nursery = await self._background.__aenter__()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *details: Any) -> None:
        try:
            await self.aclose()
        finally:
            await self._background.__aexit__(*details)

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """End every template, and wait until they are reaped. Workers must have been reaped before.

        Cancellation: Does not shorten it: templates are killed.
        """
        self._is_closed = True
        for template in self._running:
            template.end()
        with trio.CancelScope(shield=True):
            while self._running:
                await next(iter(self._running)).ended.wait()
                await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def open(self, *, worker_id: str, incarnation: int) -> SubprocessPort:
        """Fork one process and return its port. The handshake is not yet done.

        Args:
            worker_id: Name of the worker, for its arguments and for errors.
            incarnation: Which process of this name it is; two of them share nothing.

        Raises:
            WorkerStartError: It could not be started; says why, and what to change. Nothing is left behind.

        Cancellation:
            Honoured while the template warms up, which goes on. A fork under way is finished, and then the port
            is returned. Own it before the next await.
        """
        for _ in range(_TRIES):
            template = self._current()
            try:
                launched = await template.fork(worker_id)
            except TemplateLostError:
                continue
            except WorkerStartError:
                if template.is_spoilt:
                    self._forget(template)
                raise
            return SubprocessPort(launched, self._options, worker_id, self._on_stderr_line)
        raise WorkerStartError(
            f"worker {worker_id} could not be started: its templates die. See what ends them.",
            worker_id=worker_id,
        )

    def _current(self) -> TemplateProcess:
        if self._nursery is None or self._is_closed:
            raise WorkerStartError("no worker can be forked outside of the factory's 'async with' block")
        if self._template is None or self._template.ended.is_set():
            self._template = TemplateProcess(
                self._options, self._on_stderr_line, warm_up_timeout=self.warm_up_timeout
            )
            self._running.add(self._template)
            self._nursery.start_soon(self._keep, self._template, name="dspex_pool template")
        return self._template

    def _forget(self, template: TemplateProcess) -> None:
        if self._template is template:
            self.renew()

    # Protected from Ctrl-C: one that has ended must leave those that are running.
    @trio.lowlevel.enable_ki_protection
    async def _keep(self, template: TemplateProcess) -> None:
        await template.run()
        self._running.discard(template)
        # One that was of no use is replaced when a worker is wanted: the next may well die like it.
        if self._template is template and template.has_forked and not self._is_closed:
            _LOG.warning("the template (pid %s) has ended; a new one is started", template.pid)
            try:
                self._current()
            except Exception:
                # In this nursery it would end the pool. The next worker that is wanted asks again.
                _LOG.exception("no new template could be started")


def _checked(options: SubprocessOptions) -> SubprocessOptions:
    missing = [name for module, name in _NEEDED if not hasattr(module, name)]
    if missing:
        raise InvalidConfigError(
            f"workers cannot be forked from a template here: this system has no {', '.join(missing)}. "
            "It takes Linux; elsewhere, set start_method to spawn.",
            key="start_method",
            value="template",
            allowed="spawn",
            source="argument",
        )
    if options.command is not None:
        raise InvalidConfigError(
            "command does not go with a template, which forks the bridge; leave it out, or set start_method to spawn",
            key="command",
            value=options.command,
            allowed="none where start_method is template",
            source="argument",
        )
    return options
