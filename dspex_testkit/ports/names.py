"""The names of the kinds of port, and the layer that each makes of a test. Loaded in every pytest run."""

from __future__ import annotations

from typing import Final

__all__ = ["ALL", "DEFAULT_HANDLER", "ECHO_HANDLER", "FURTHER_SETTINGS", "LAYER_OF_PORT", "PORT_OF_LAYER"]

#: On which layer a body is that runs on a kind of port.
LAYER_OF_PORT: Final = {"sim": "fast", "server": "protocol", "process": "integration"}
#: On which kind of port a body runs that has a layer and says nothing of ports.
PORT_OF_LAYER: Final = {layer: port for port, layer in LAYER_OF_PORT.items()} | {
    "chaos": "process",
    "stress": "process",
}
#: The word for every kind.
ALL: Final = "all"

#: What may be set of a body's pool beside the settings of ``PoolConfig``, as a test holds it to what takes them:
#: ``open_handle``, and the kinds of port.
FURTHER_SETTINGS: Final = ("commands", "fail_fast", "is_ready", "ports", "telemetry")

#: What serves in worker processes that are asked to echo.
ECHO_HANDLER: Final = "dspex_testkit.children.echo:EchoHandler"
#: What serves unless a test says otherwise: echoes, and canned programs.
DEFAULT_HANDLER: Final = "dspex_testkit.children.canned:CannedHandler"
