"""Faults of language models: each happens to a client of the model, and nothing proves what was not done."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.errors import ProgramError
from dspex_testkit.chaos import catalogue as of
from dspex_testkit.chaos.fault import FaultDidNotHappenError

if TYPE_CHECKING:
    from dspex_testkit.chaos.chaos import Chaos
    from dspex_testkit.chaos.fault import Fault
    from dspex_testkit.lm.engine import ScriptedLM
    from dspex_testkit.lm.server import LMServer

pytestmark = pytest.mark.chaos

#: Each fault, with what a client sees instead of an answer.
FAULTS: dict[Fault, str] = {
    of.LmSlow(seconds=0.05, text="late"): "200 late",
    of.LmRateLimited(times=1): "429",
    of.LmDown(times=1): "broken",
    of.LmFailing(status=503, times=1): "503",
    of.LmNonsense(text="hm", times=1): "200 hm",
    of.LmCutStream(): "broken",
}


def asked(server: LMServer, *, stream: bool) -> str:
    """Ask the model for something; return the status and the text, or ``broken``."""
    client = http.client.HTTPConnection(urlsplit(server.api_base).netloc, timeout=10)
    body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "?"}]})
    try:
        client.request("POST", "/v1/chat/completions", body)
        answer = client.getresponse()
        text = answer.read()
    except (http.client.HTTPException, ConnectionError):
        return "broken"
    finally:
        client.close()
    if answer.status != 200 or stream:
        return str(answer.status)
    return f"200 {json.loads(text)['choices'][0]['message']['content']}"


@pytest.mark.parametrize(("fault", "seen"), FAULTS.items(), ids=lambda value: type(value).__name__)
def test_fault_happens_to_a_client(fault: Fault, seen: str, chaos: Chaos, lm_server: LMServer) -> None:
    """The client sees it, the model says so, and afterwards the model is well."""
    lm_server.script.otherwise("well")
    with chaos(fault, script=lm_server.script) as injected:
        assert asked(lm_server, stream=isinstance(fault, of.LmCutStream)) == seen
        injected.happened(times=1)
    assert asked(lm_server, stream=False) == "200 well"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda value: type(value).__name__)
def test_no_proof_comes_of_nothing(fault: Fault, chaos: Chaos, lm_server: LMServer) -> None:
    """With the injector disarmed and the same question asked, the proof fails."""
    lm_server.script.otherwise("well")
    injected = chaos.disarmed()(fault, script=lm_server.script)
    assert asked(lm_server, stream=False) == "200 well"
    with pytest.raises(FaultDidNotHappenError, match="happened 0 times"):
        injected.happened()


def test_mending_takes_nothing_of_what_others_have_ordered(chaos: Chaos, lm_server: LMServer) -> None:
    """With a fault, all that looked like it was withdrawn: steps of the test's script, and a second such fault."""
    fault = of.LmNonsense(times=2)
    script = lm_server.script.nonsense(times=1)
    with chaos(fault, script=script) as outer:
        with chaos(fault, script=script) as inner:
            assert asked(lm_server, stream=False) == f"200 {fault.text}"
            inner.happened(times=1)
            with pytest.raises(FaultDidNotHappenError):
                outer.happened()
        assert script.remaining == 3
        assert asked(lm_server, stream=False) == f"200 {fault.text}"
    assert script.remaining == 1
    assert asked(lm_server, stream=False) == f"200 {fault.text}"


def test_every_fault_of_a_language_model_has_a_case() -> None:
    """No fault is in the catalogue that nobody has seen happen."""
    assert [type(fault) for fault in FAULTS] == [kind for kind in of.CATALOGUE if kind.where == ("lm",)]


@pytest.mark.trio
async def test_fault_reaches_a_worker(chaos: Chaos, scripted_lm: ScriptedLM) -> None:
    """A model within a real worker has the same faults; the caller hears of it, and the worker serves on."""
    scripted_lm.script.otherwise({"answer": "Rome"})
    settings: dict[str, Any] = scripted_lm.settings
    async with PythonPool.open(pool_size=1, allow=(scripted_lm.allow,)) as pool:
        await pool.configure_lm(**settings)
        await pool.create_program("qa", "question -> answer")
        with chaos(of.LmRateLimited(), script=scripted_lm.script) as fault:
            with pytest.raises(ProgramError) as refused:
                await pool.execute_program("qa", {"question": "?"})
            fault.happened(times=4)
        assert refused.value.status == 429
        assert (await pool.execute_program("qa", {"question": "?"}))["outputs"] == {"answer": "Rome"}
        assert pool.statistics().counters.started == 1
