"""The scripted language model in front of real workers: as an engine in them, and as a server beside them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from dspex_pool.errors import CallTimeoutError, ProgramError
from dspex_pool.facades import SyncPool
from dspex_testkit.lm.engine import ScriptedLM
from dspex_testkit.lm.script import LMScript
from dspex_testkit.lm.steps import LMRequest
from dspex_testkit.script import ScriptNotDrainedError
from tests.cases import case

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dspex_pool.facades.sync import SyncAdapter
    from dspex_testkit.lm.server import LMServer

pytestmark = pytest.mark.integration

STREAMING = "dspex_testkit.children.streaming_programs"
QUESTION = {"question": "What is the capital of Italy?"}


class Asked:
    """A tenant whose model is scripted, one way or the other."""

    def __init__(self, tenant: SyncAdapter, model: ScriptedLM | LMServer) -> None:
        self.tenant = tenant
        self.model = model
        self.script = model.script
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Have the tenant use the model."""
        self.tenant.configure_lm(**{**self.model.settings, **settings})

    def ask(self, program: str = "p", **options: Any) -> Any:
        """Run a program."""
        return self.tenant.execute_program(program, QUESTION, **options)

    def refused(self, program: str = "p") -> ProgramError:
        """Run a program that must fail."""
        with pytest.raises(ProgramError) as info:
            self.ask(program)
        return info.value


@pytest.fixture(scope="module")
def tenant() -> Iterator[SyncAdapter]:
    """A tenant of one warm worker, with a program that predicts and one that streams."""
    with SyncPool(pool_size=1, lazy=False, cancel_grace=10.0, allow=(ScriptedLM.allow, STREAMING)) as pool:
        adapter = pool.session_adapter("tenant")
        adapter.create_program("p", "question -> answer")
        adapter.create_program("streams", factory=f"{STREAMING}:streamer")
        yield adapter


@pytest.fixture
def over_http(tenant: SyncAdapter, lm_server: LMServer) -> Asked:
    """The model as a server, asked through DSPy's transport."""
    return Asked(tenant, lm_server)


@pytest.fixture
def in_worker(tenant: SyncAdapter, scripted_lm: ScriptedLM) -> Asked:
    """The model as an engine in the worker."""
    return Asked(tenant, scripted_lm)


@pytest.fixture(params=["in_worker", "over_http"])
def asked(request: pytest.FixtureRequest) -> Asked:
    """The model in both ways, one after the other."""
    asked: Asked = request.getfixturevalue(request.param)
    return asked


# --- both ways ---------------------------------------------------------------------------------------------


def test_model_answers_and_both_sides_count_the_same(asked: Asked) -> None:
    """Fields in the form that the adapter parses; tokens as the script tells them; the request can be looked at."""
    asked.script.reply({"answer": "Rome"}, input_tokens=1000, output_tokens=100)
    asked.configure(temperature=0.25)
    result = asked.ask()
    assert result["outputs"] == {"answer": "Rome"}
    (usage,) = result["usage"].values()
    assert usage["total_tokens"] == asked.script.usage.total_tokens == 1100
    (request,) = asked.script.received
    assert QUESTION["question"] in request.prompt
    assert request.settings["temperature"] == 0.25


def test_rate_limit_reaches_the_caller_with_its_wait(asked: Asked) -> None:
    """DSPy waits as long as it is told, tries four times in all, and then the error says the rest."""
    asked.script.rate_limit(retry_after=0.03)
    began = time.monotonic()
    error = asked.refused()
    assert time.monotonic() - began >= 0.09
    assert (error.status, error.retry_after, error.retryable) == (429, 0.03, True)
    assert len(asked.script.received) == 4


def test_rate_limit_that_ends_costs_the_call_nothing(asked: Asked) -> None:
    """DSPy's own retries get the answer."""
    asked.script.rate_limit(retry_after=0.01, times=2).reply({"answer": "Rome"})
    assert asked.ask()["outputs"] == {"answer": "Rome"}


def test_failing_provider_is_told_by_its_status(asked: Asked) -> None:
    """And by the provider's text."""
    asked.script.fail(503, message="The engine room is flooded.")
    error = asked.refused()
    assert error.status == 503
    assert "flooded" in error.message


def test_refused_key_is_not_tried_again(asked: Asked) -> None:
    """Waiting does not mend a key."""
    asked.script.fail(401, message="Incorrect API key provided.", times=1)
    error = asked.refused()
    assert (error.status, error.retryable) == (401, False)


def test_nonsense_is_told_as_what_it_is(asked: Asked) -> None:
    """DSPy asks once in sections and once in JSON, and then says what it could not parse."""
    asked.script.nonsense("Ceci n'est pas une réponse.")
    error = asked.refused()
    assert error.code == "adapter_parse_error"
    assert "Ceci n'est pas" in error.message


def test_slow_model_is_given_up_and_its_worker_kept(asked: Asked) -> None:
    """The caller's time-out stops the wait, in a sleeping engine and on a silent connection."""
    asked.script.reply({"answer": "Rome"}, delay=600.0).reply({"answer": "Paris"})
    pid = asked.tenant.ping()["pid"]
    with pytest.raises(CallTimeoutError):
        asked.ask(timeout=0.3)
    assert asked.ask()["outputs"] == {"answer": "Paris"}
    assert asked.tenant.ping()["pid"] == pid


def test_stream_comes_in_pieces(asked: Asked) -> None:
    """A program that streams sees the answer grow; the request says that it wants to."""
    text = "Rome, which was not built in a day, but is the capital of Italy all the same."
    asked.script.reply({"answer": text}, pieces=40)
    outputs = asked.ask("streams")["outputs"]
    assert outputs["answer"] == text
    assert len(outputs["pieces"]) > 2
    assert "".join(outputs["pieces"]) == text
    assert asked.script.received[0].settings["stream"] is True


def test_stream_that_is_cut_fails_its_call(asked: Asked) -> None:
    """What has come is no answer."""
    asked.script.down(after_pieces=2, times=8)
    error = asked.refused("streams")
    assert asked.script.usage.answers == 0
    assert error.remote_traceback is not None
    asked.script.forget()  # how often DSPy asks for a stream is its own affair


def test_exhausted_script_fails_the_call(asked: Asked) -> None:
    """At once, with the reason; and it would fail the test, did the test not see to it."""
    error = asked.refused()
    assert "script is exhausted: request 1 came after the 0" in error.message
    assert len(asked.script.received) == 1
    with pytest.raises(ScriptNotDrainedError, match="unexpected request 1"):
        asked.script.assert_drained()
    asked.script.forget()


# --- one way -----------------------------------------------------------------------------------------------


def test_broken_connection_is_told_as_such(in_worker: Asked) -> None:
    """After DSPy's four tries."""
    in_worker.script.down()
    error = in_worker.refused()
    assert (error.code, error.status, error.retryable) == ("transport", None, True)


def test_broken_connection_that_mends_costs_the_call_nothing(over_http: Asked) -> None:
    """DSPy tries again after a second."""
    over_http.script.down(times=1).reply({"answer": "Rome"})
    assert over_http.ask()["outputs"] == {"answer": "Rome"}


def test_provider_that_refuses_connections_is_seen_and_survived(
    over_http: Asked, lm_server: LMServer
) -> None:
    """Nobody listens meanwhile; afterwards the same address serves again."""
    address = lm_server.api_base
    with lm_server.refusing():
        with pytest.raises(ConnectionRefusedError):
            connect(lm_server)
        with pytest.raises(CallTimeoutError):
            over_http.ask(timeout=0.3)
    over_http.script.reply({"answer": "Rome"})
    assert lm_server.api_base == address
    assert over_http.ask()["outputs"] == {"answer": "Rome"}


@pytest.mark.budget(30)  # the first to ask pays for the import of litellm, several seconds
def test_litellm_speaks_with_the_server_too(over_http: Asked) -> None:
    """The other transport of DSPy, over the client of OpenAI."""
    over_http.script.rate_limit(retry_after=0.01, times=1).reply({"answer": "Rome"})
    over_http.configure(engine="litellm")
    assert over_http.ask()["outputs"] == {"answer": "Rome"}


def test_one_script_serves_many_processes(tmp_path: Path) -> None:
    """Whoever opens the file plays the same script: each step is taken once."""
    scripts = [LMScript(tmp_path / "script.json") for _ in range(2)]
    scripts[0].reply("one").reply("two")
    request = LMRequest(model="m", messages=[{"role": "user", "content": "?"}])
    assert [scripts[1].take(request).text, scripts[0].take(request).text] == ["one", "two"]
    assert scripts[0].usage == scripts[1].usage
    scripts[0].assert_drained()


def test_server_leaves_at_once_although_an_answer_is_due(lm_server: LMServer) -> None:
    """Its end is no matter of the script's delays."""
    lm_server.script.reply("late", delay=600.0)
    body = b'{"model": "m", "messages": [{"role": "user", "content": "?"}]}'
    with connect(lm_server) as client:
        client.sendall(head_of("POST /v1/chat/completions", body) + body)
        while not lm_server.script.received:
            time.sleep(0.001)
        began = time.monotonic()
        lm_server.stop()
        assert time.monotonic() - began < 5
        while client.recv(4096):
            pass


PLAYER = """
import sys
from pathlib import Path
from dspex_testkit.lm.script import LMScript
from dspex_testkit.lm.steps import LMRequest
script = LMScript(Path(sys.argv[1]))
while True:
    print(flush=True)
    script.take(LMRequest(model="m", messages=[{"role": "user", "content": "?" * 2000}]))
"""


def test_script_survives_a_player_that_is_killed(tmp_path: Path) -> None:
    """A worker that was killed while it took a step left an empty file, or half of one: all steps were lost."""
    script = LMScript(tmp_path / "script")
    script.reply("kept", times=1000)
    for takes in range(1, 7):
        command = [sys.executable, "-c", PLAYER, str(script.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as player:
            assert player.stdout is not None
            for _ in range(5 * takes):
                assert player.stdout.readline()
            player.kill()
        played = len(script.played)
        assert played >= 5 * takes - 1
        assert script.remaining + played == 1000


def test_stopping_does_not_wait_for_a_client_that_is_not_done(lm_server: LMServer) -> None:
    """A stopped or hung client, half of whose request is there, cost twenty seconds and a failed assertion."""
    with connect(lm_server) as client:
        client.sendall(head_of("POST /v1/chat/completions", b"x" * 100) + b"{")
        assert exchange(lm_server, "GET /v1/models") == 200  # by then it has been read
        began = time.monotonic()
        lm_server.stop()
        assert time.monotonic() - began < 5
        while client.recv(4096):
            pass


def test_stopping_does_not_wait_for_a_client_that_does_not_read(lm_server: LMServer) -> None:
    """A long answer to a client that hangs is broken off."""
    lm_server.script.reply("x" * 30_000_000)
    body = b'{"model": "m", "messages": []}'
    with connect(lm_server) as client:
        client.sendall(head_of("POST /v1/chat/completions", body) + body)
        assert client.recv(1) == b"H"
        began = time.monotonic()
        lm_server.stop()
        assert time.monotonic() - began < 5
        with contextlib.suppress(ConnectionResetError):
            while client.recv(1 << 20):
                pass


def test_server_says_what_it_does_not_serve(lm_server: LMServer) -> None:
    """A request that is none takes nothing from the script."""
    chat = "POST /v1/chat/completions"
    assert exchange(lm_server, "GET /v1/models") == 200
    assert exchange(lm_server, "GET /v1/engines") == 404
    assert exchange(lm_server, chat, b"{") == 400
    assert exchange(lm_server, chat, b"[]") == 400
    assert exchange(lm_server, chat, b'{"model": "m"}') == 400
    assert lm_server.script.received == []


#: Requests with a field of another type; the last one nests deeper than Python reads.
ILL_TYPED = (
    b'"messages": [{"role": "user", "content": 5}]}',
    b'"messages": [{"role": "user", "content": {"text": "?"}}]}',
    b'"messages": [{"role": 5, "content": "?"}]}',
    b'"messages": [], "stream": true, "stream_options": true}',
    b'"messages": ' + b"[" * 100_000,
)


def test_request_whose_fields_have_other_types_is_refused(lm_server: LMServer) -> None:
    """It is the client's mistake: 400, which nobody asks again. It was 500, and had taken a step of the script."""
    lm_server.script.otherwise("well")
    for fields in ILL_TYPED:
        with case(fields):
            assert exchange(lm_server, "POST /v1/chat/completions", b'{"model": "m", ' + fields) == 400
    assert lm_server.script.received == []


# --- talking to the server -----------------------------------------------------------------------------------


def connect(server: LMServer) -> socket.socket:
    """Open a connection."""
    return socket.create_connection(("127.0.0.1", urlsplit(server.api_base).port or 0), timeout=10)


def head_of(line: str, body: bytes) -> bytes:
    """Return the head of a request."""
    text = f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return text.encode()


def exchange(server: LMServer, line: str, body: bytes = b"") -> int:
    """Send one request and return the status of its answer."""
    with connect(server) as client:
        client.sendall(head_of(line, body) + body)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return int(answer.split()[1])
