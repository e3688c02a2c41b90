"""What happens in a pool, as events: the catalogue, the handing out, and the sums."""

from dspex_pool.telemetry.bus import Attachment, Handler, Telemetry
from dspex_pool.telemetry.catalogue import EVENTS, PREFIX, EventSpec, events_table, problem_with
from dspex_pool.telemetry.gauges import GaugeLedger

__all__ = [
    "EVENTS",
    "PREFIX",
    "Attachment",
    "EventSpec",
    "GaugeLedger",
    "Handler",
    "Telemetry",
    "events_table",
    "problem_with",
]
