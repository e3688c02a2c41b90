"""A handler for the real bridge that asks a language model over HTTP without DSPy, beside what the canned one serves.

Start it as ``python -m dspex_pool.bridge --handler dspex_testkit.children.asking:AskingHandler``.
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dspex_pool.bridge.handler import command
from dspex_testkit.children.canned import CannedHandler

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AskingHandler", "ModelError"]

#: Seconds that a language model has for one answer.
_ANSWERS_WITHIN = 10.0


class ModelError(Exception):
    """The language model gave no answer that could be used.

    Args:
        text: What it did instead.
        status: The status of HTTP, if it refused.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class AskingHandler(CannedHandler):
    """Serves what ``CannedHandler`` does, and ``ask``."""

    def error_facts(self, error: BaseException) -> Mapping[str, Any]:
        """Return the status with which the model refused."""
        if isinstance(error, ModelError):
            return {"status": error.status}
        return super().error_facts(error)

    @command
    def ask(self, args: dict[str, Any]) -> dict[str, Any]:
        """Ask the model at ``api_base``; return the args and its ``answer``."""
        client = http.client.HTTPConnection(urlsplit(args["api_base"]).netloc, timeout=_ANSWERS_WITHIN)
        question = {"model": "m", "messages": [{"role": "user", "content": args["nonce"]}]}
        try:
            client.request("POST", "/v1/chat/completions", json.dumps(question))
            response = client.getresponse()
            text = response.read()
        except (http.client.HTTPException, OSError) as error:
            raise ModelError(f"the connection broke: {error!r}") from error
        finally:
            client.close()
        if response.status != http.client.OK:
            raise ModelError(f"the model refused: {response.status}", response.status)
        return {**args, "answer": json.loads(text)["choices"][0]["message"]["content"]}
