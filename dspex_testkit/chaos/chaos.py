"""The injector: ``with chaos(Kill(worker=0)) as fault``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from dspex_testkit.chaos.fault import LM, Fault, FaultDidNotHappenError
from dspex_testkit.chaos.injection import Injection
from dspex_testkit.chaos.ports import LinedPorts
from dspex_testkit.ports.run import Companion

if TYPE_CHECKING:
    import random

    from dspex_testkit.lm.script import LMScript
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.ports.run import BodyRun

__all__ = ["Chaos"]


class Chaos(Companion):
    """Injects faults, and remembers them.

    Args:
        numbers: What faults draw comes from here.
        pool: The pool that is meant, unless another is named; by default the one that the test has.
        is_armed: Whether faults are really injected. Without that their proofs fail, which is how they are tested.
    """

    def __init__(
        self, numbers: random.Random, *, pool: PoolHandle | None = None, is_armed: bool = True
    ) -> None:
        self.numbers = numbers
        #: Everything that was injected, in order.
        self.injections: list[Injection] = []
        self._pool = pool
        self._is_armed = is_armed
        self._run: BodyRun | None = None

    def join(self, run: BodyRun) -> None:
        """Put lines before all workers of a test."""
        self._run = run
        run.wrap = LinedPorts

    def leave(self) -> None:
        """Mend what the test has left as it was, the last first; one that cannot be mended keeps no other from it."""
        with contextlib.ExitStack() as mending:
            for injection in self.injections:
                mending.callback(injection.mend)

    def demand_proofs(self) -> None:
        """Check that of everything that was injected the proof was asked for.

        Raises:
            FaultDidNotHappenError: Of some it was not, so nobody knows whether it happened.
        """
        if unproven := [str(injection.fault) for injection in self.injections if not injection.is_asked]:
            raise FaultDidNotHappenError(
                f"nobody asked whether this happened: {', '.join(unproven)}; use with chaos(…), or happened()"
            )

    def disarmed(self) -> Self:
        """Return an injector that does nothing but look on."""
        other = type(self)(self.numbers, pool=self._pool, is_armed=False)
        other._run = self._run
        return other

    def __call__(
        self, fault: Fault, *, pool: PoolHandle | None = None, script: LMScript | None = None
    ) -> Injection:
        """Inject a fault; use what is returned in a ``with`` block, which mends it and demands the proof.

        Args:
            fault: What is injected.
            pool: Where; by default the pool of the test, the newest if there are several.
            script: The script of the language model, for faults of language models.

        Raises:
            TypeError: It is no fault of the catalogue's kind.
            ValueError: The fault cannot be on this kind of port.
        """
        if not isinstance(fault, Fault):
            raise TypeError(f"{fault!r} is no fault, such as Kill(worker=0) of dspex_testkit.chaos.catalogue")
        where = None if fault.where == LM else self._pool_of(pool)
        if where is not None and where.port not in fault.where:
            raise ValueError(f"{fault} can be on {', '.join(fault.where)}; this pool is on {where.port}")
        injection = Injection(fault, pool=where, script=script, numbers=self.numbers, is_armed=self._is_armed)
        injection.begin()
        self.injections.append(injection)
        return injection

    def _pool_of(self, given: PoolHandle | None) -> Any:
        handles = [] if self._run is None else self._run.handles
        found = given or self._pool or (handles[-1] if handles else None)
        if found is None:
            raise ValueError("there is no pool to inject a fault into: let the test ask for one, or name it")
        return found
