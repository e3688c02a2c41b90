"""What people do to a pool at work, as faults on a time line: resize, drain, suspend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dspex_testkit.chaos.fault import Fault, Witness

if TYPE_CHECKING:
    from dspex_testkit.chaos.injection import Injection

__all__ = ["ACTS", "DrainPool", "ResizePool", "SuspendPool"]


class ResizePool(Fault, frozen=True, kw_only=True):
    """The pool gets another size, and its own again when faults stop."""

    size: int
    proof = "the pool's own size was read"

    def inject(self, to: Injection) -> Witness:
        """Resize it."""
        workers, before = to.pool.workers, to.pool.python_pool.config.pool_size
        to.do(workers.resize, self.size)
        to.afterwards(workers.resize, before)
        seen = to.pool.size
        return lambda: [f"size {seen}"] if seen == self.size else []


class DrainPool(Fault, frozen=True, kw_only=True):
    """Every worker is replaced, at work or not."""

    proof = "every worker of before has left the pool's books"

    def inject(self, to: Injection) -> Witness:
        """Drain it."""
        workers = to.pool.workers
        before = set(workers._state.workers)
        to.do(workers.drain)

        def look() -> list[str]:
            have_left = before and not before & set(workers._state.workers)
            return [f"{len(before)} workers have left"] if have_left else []

        return look


class SuspendPool(Fault, frozen=True, kw_only=True):
    """No worker is lent for a while."""

    proof = "callers stood in line while it was suspended"

    def inject(self, to: Injection) -> Witness:
        """Suspend it."""
        workers = to.pool.workers
        seen: list[str] = []
        to.do(workers.suspend)
        to.afterwards(workers.resume)

        def look() -> list[str]:
            if not seen and workers._state.is_suspended and (waiting := workers.statistics().waiting):
                seen.append(f"{waiting} callers wait")
            return seen

        return look


#: What may stand in a plan beside the faults of the catalogue.
ACTS: Final[tuple[type[Fault], ...]] = (ResizePool, DrainPool, SuspendPool)
