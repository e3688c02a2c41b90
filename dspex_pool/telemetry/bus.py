"""Handing events to whoever attached a handler. One object for each pool; nothing is global."""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex_pool.errors import InvalidArgumentError
from dspex_pool.logs import PoolLog
from dspex_pool.telemetry.catalogue import EVENTS, PREFIX

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Attachment", "Handler", "Telemetry"]

_log = PoolLog("dspex_pool.telemetry")

#: Takes the event's name, its measurements and its metadata. It runs in the task that emits, so it must
#: return soon, and it must not change the mappings, which other handlers see too.
Handler: TypeAlias = Callable[[tuple[str, ...], Mapping[str, float], Mapping[str, Any]], object]
#: The whole name of an event, and whom it is for.
_Route: TypeAlias = "tuple[tuple[str, ...], tuple[Attachment, ...]]"


class _Heard(dict["str | tuple[str, ...]", bool]):
    """Which events any handler is called for: a table that fills itself, for one set of attachments.

    Args:
        is_heard: Tells it of one event, by the last part of its name.
    """

    def __init__(self, is_heard: Callable[[str], bool]) -> None:
        self._is_heard = is_heard

    def __missing__(self, names: str | tuple[str, ...]) -> bool:
        each = (names,) if isinstance(names, str) else names
        answer = self[names] = any(self._is_heard(name) for name in each)
        return answer


class Telemetry:
    """The events of one pool.

    Handlers are called one after the other, in the order in which they were attached, by the task that emits.
    ``attach`` and ``detach`` may be called from any thread and from within a handler.
    """

    def __init__(self) -> None:
        #: Whether any handler is attached. While false, whoever emits need not even put the event together.
        self.observed = False
        #: Called with the new value when ``observed`` changes, for those who keep a copy of it.
        self.on_observed: Callable[[bool], object] | None = None
        # Replaced, never changed: an emission under way goes on with the tuple it began with.
        self._attachments: tuple[Attachment, ...] = ()
        # By name, as ``emit`` is given it: the whole name, and whom it is for. Made anew with every change.
        self._routes: dict[str | tuple[str, ...], _Route] = {}
        #: Whether any handler is called for an event, by the last part of its name, or for any of several. Made anew
        #: with every change as well.
        self.heard: Mapping[Any, bool] = _Heard(self._is_heard)
        # Reentrant, because the hook below may attach or detach.
        self._changing = threading.RLock()

    def attach(
        self, prefix: tuple[str, ...], handler: Handler, *, names: Collection[str] | None = None
    ) -> Attachment:
        """Call ``handler`` for every event whose name begins with ``prefix``, from now on.

        Args:
            prefix: Beginning of the names, such as ``("dspex", "python_bridge", "pool", "checkout")``;
                empty for all events.
            handler: A plain function. If it raises, that is logged and it is detached.
            names: Of these events only those whose names end in one of these parts; by default all. Events that
                nobody is called for are not even put together.

        Returns:
            A context manager; leaving it, or calling its ``detach``, ends the calls.

        Raises:
            TypeError: The prefix is no tuple of strings, the names are one string, or the handler is a coroutine
                function.
            InvalidArgumentError: The pool has no event of that name, so that the handler would never be called.
        """
        if not isinstance(prefix, tuple) or not all(isinstance(part, str) for part in prefix):
            raise TypeError(f"a prefix is a tuple of strings, not {prefix!r}")
        if not callable(handler) or inspect.iscoroutinefunction(handler):
            raise TypeError(f"a handler is a plain function, because nobody would await it; got {handler!r}")
        if isinstance(names, str):
            raise TypeError(f"names are a collection of strings, not the one string {names!r}")
        _refuse_unknown(prefix, names or ())
        attachment = Attachment(self, prefix, handler, None if names is None else frozenset(names))
        with self._changing:
            self._set_attachments((*self._attachments, attachment))
        return attachment

    def emit(
        self, name: str | tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        """Hand an event to the handlers attached for it; without any, return at once.

        Args:
            name: The last part of the name, after ``PREFIX``, or the whole name as a tuple.
            measurements: Durations in seconds, and counts.
            metadata: Ids, states and reasons.
        """
        if not self.observed:
            return
        event, attachments = self._route(name)
        for attachment in attachments:
            attachment.deliver(event, measurements, metadata)

    def _is_heard(self, name: str) -> bool:
        return bool(self._route(name)[1])

    def _route(self, name: str | tuple[str, ...]) -> _Route:
        # Taken before the attachments are read: a change meanwhile replaces it, and what is noted here is lost.
        routes = self._routes
        route = routes.get(name)
        if route is None:
            event = (*PREFIX, name) if isinstance(name, str) else name
            route = routes[name] = event, tuple(each for each in self._attachments if each.is_for(event))
        return route

    def _remove(self, attachment: Attachment) -> None:
        with self._changing:
            self._set_attachments(tuple(kept for kept in self._attachments if kept is not attachment))

    def _set_attachments(self, attachments: tuple[Attachment, ...]) -> None:
        self._attachments = attachments
        self._routes = {}
        self.heard = _Heard(self._is_heard)
        was_observed, self.observed = self.observed, bool(attachments)
        if was_observed != self.observed and self.on_observed is not None:
            self.on_observed(self.observed)


def _refuse_unknown(prefix: tuple[str, ...], names: Collection[str]) -> None:
    """Refuse a name that no event of the pool has. What others emit is theirs to name."""
    if prefix[: len(PREFIX)] != PREFIX:
        return
    last = prefix[len(PREFIX) :]
    for argument, name in (("prefix", ".".join(last)), *(("names", name) for name in names)):
        if name and name not in EVENTS:
            nearest = difflib.get_close_matches(name, EVENTS, n=1)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else f"There are {', '.join(sorted(EVENTS))}."
            raise InvalidArgumentError(f"the pool has no event {name!r}. {hint}", argument=argument)


class Attachment:
    """One handler's attachment to a pool's events. Made by ``Telemetry.attach``."""

    def __init__(
        self,
        telemetry: Telemetry,
        prefix: tuple[str, ...],
        handler: Handler,
        names: frozenset[str] | None = None,
    ) -> None:
        #: Beginning of the names of the events that the handler gets.
        self.prefix = prefix
        #: Last parts of their names, or ``None`` for all.
        self.names = names
        #: Whether the handler is still called.
        self.is_attached = True
        self._telemetry = telemetry
        self._handler = handler

    def detach(self) -> None:
        """End the calls, at once. Doing it again does nothing."""
        if self.is_attached:
            self.is_attached = False
            self._telemetry._remove(self)

    def is_for(self, event: tuple[str, ...]) -> bool:
        """Tell whether the handler wants an event of this name."""
        is_wanted = self.names is None or event[-1] in self.names
        return is_wanted and event[: len(self.prefix)] == self.prefix

    def deliver(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        """Call the handler with an event that is for it; a handler that raises is logged and detached."""
        if not self.is_attached:
            return
        try:
            self._handler(event, measurements, metadata)
        except Exception:
            # A counter that is broken must not cost a call its result; and once is enough for the log.
            self.detach()
            _log.exception(
                "telemetry handler %s raised on event %s and was detached",
                self._handler_name,
                ".".join(event),
            )

    @property
    def _handler_name(self) -> str:
        return getattr(self._handler, "__qualname__", None) or repr(self._handler)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self.is_attached else "detached"
        return f"<Attachment of {self._handler_name} to {'.'.join(self.prefix) or 'all events'}, {state}>"
