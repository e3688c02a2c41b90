"""What the strategies draw is what the real decoders, parsers and validators take; and they reach the edges.

That requests, replies, events and streams are, ``test_splits.py`` shows, which draws them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from dspex_pool.bridge.definitions import read_definition
from dspex_pool.bridge.signatures import validate_inputs
from dspex_pool.config import PoolConfig, PoolOptions
from dspex_pool.errors import InvalidConfigError
from dspex_pool.protocol import (
    ClientConversation,
    Event,
    FrameDecoder,
    decode_from_worker,
    encode_frame,
)
from dspex_pool.session_store import MemorySessionStore, SessionRecord
from dspex_pool.session_table import MAX_SESSION_ID_BYTES, check_session_id
from dspex_testkit import strategies
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.plan import Exit, Oversize, Plan, Raw, Reply, Stall
from dspex_testkit.worker_model import WorkerModel

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.protocol

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
thorough = settings(
    max_examples=2_000, phases=[Phase.generate], deadline=None, database=None, derandomize=True
)


# --- legal ---------------------------------------------------------------------------------------------------


@quick
@given(strategies.frames(st.just(b"abc")), strategies.frames())
def test_frames_are_whole(one: bytes, other: bytes) -> None:
    """A frame is read without a byte more or less."""
    decoder = FrameDecoder()
    decoder.feed(one + other)
    assert decoder.next_frame() == b"abc"
    assert encode_frame(decoder.next_frame() or b"") == other
    assert decoder.buffered == 0


@quick
@given(st.data())
def test_definitions_and_inputs_are_what_the_bridge_takes(data: st.DataObject) -> None:
    """Every program is read by the real bridge and made by the canned one; its inputs fit it."""
    definition = data.draw(strategies.definitions())
    spec = read_definition(definition).spec
    assert spec is not None
    inputs = data.draw(strategies.inputs_for(definition["signature"]))
    validate_inputs(spec, inputs, program_id="p")
    bridge = CannedBridge()
    bridge.run("create_program", {"session_id": "s", "id": "p", **definition})
    execution = {"session_id": "s", "program_id": "p", "inputs": inputs}
    outputs = bridge.run("execute_program", execution)["outputs"]
    assert {field.name for field in spec.outputs} <= outputs.keys()


@quick
@given(strategies.session_ids())
def test_session_ids_can_be_ids(session_id: str) -> None:
    """No id is refused."""
    assert check_session_id(session_id) == session_id


@quick
@given(st.lists(strategies.session_records(), max_size=3, unique_by=lambda record: record.id))
def test_session_records_are_kept_as_they_are(records: list[SessionRecord]) -> None:
    """A store gives back every record unchanged."""

    async def keep() -> list[SessionRecord]:
        store = MemorySessionStore()
        for record in records:
            await store.put_session(record)
        return await store.load_all()

    assert sorted(trio.run(keep), key=lambda each: each.id) == sorted(records, key=lambda each: each.id)


@quick
@given(strategies.pool_settings(), strategies.pool_settings(PoolOptions), strategies.simulated_settings())
def test_settings_are_taken(whole: dict[str, Any], core: dict[str, Any], simulated: dict[str, Any]) -> None:
    """No drawn settings are refused, and those for simulations are of small pools."""
    PoolConfig(**whole)
    PoolOptions(**core)
    assert PoolOptions(**simulated).pool_size <= 3


@quick
@given(strategies.invalid_settings(), strategies.invalid_settings(PoolOptions))
def test_invalid_settings_are_refused_for_what_they_say(of_pool: Any, of_core: Any) -> None:
    """Whatever is drawn as invalid is refused, by the name of one of the settings that are to blame."""
    with pytest.raises(InvalidConfigError) as caught:
        PoolConfig().replace(**of_pool.settings)
    assert caught.value.key in of_pool.keys
    if of_core.reason != "unknown":
        with pytest.raises(InvalidConfigError) as caught:
            PoolOptions(**of_core.settings)
        assert caught.value.key in of_core.keys


def said_by(plan: Plan) -> WorkerModel:
    """Run one request of a plan on a worker, to the end."""
    client, model = ClientConversation(peer="worker"), WorkerModel(lambda _: plan)
    for command, args in (("ping", {"protocol": 2, "events": ["log", "chunk", "progress"]}), ("work", {})):
        if command == "work":
            model._answer = lambda _: plan
        else:
            model._answer = lambda _: Plan().reply({"protocol": 2})
        model.feed(encode_frame(client.request(command, args)[1]), 0.0)
    model.advance(1000.0)
    return model


@quick
@given(strategies.plans())
def test_plans_are_answered_once(plan: Plan) -> None:
    """An honest worker gives frames alone, exactly one of them an answer, and lives on."""
    model = said_by(plan)
    decoder = FrameDecoder()
    decoder.feed(model.take_output())
    messages = []
    while (payload := decoder.next_frame()) is not None:
        messages.append(decode_from_worker(payload))
    answers = [message for message in messages if not isinstance(message, Event)]
    assert [answer.id for answer in answers] == [0, 1]
    assert decoder.buffered == 0
    assert not model.has_ended
    assert not model.is_busy


@quick
@given(strategies.fault_plans())
def test_fault_plans_can_be_carried_out(plan: Plan) -> None:
    """Any worker can do what a plan with faults says, to its end."""
    model = said_by(plan)
    assert model.has_ended or not model.is_busy or any(isinstance(step, Stall) for step in plan.steps)


# --- edges ---------------------------------------------------------------------------------------------------

EDGES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bool]]] = {
    "an empty payload": (strategies.frames(), lambda frame: frame == b"\0\0\0\0"),
    "two frames in one stream": (strategies.streams(), lambda drawn: len(drawn[0]) > 1),
    "a read that brings nothing": (strategies.cuts(), lambda lengths: 0 in lengths),
    "an id beyond 32 bits": (strategies.requests(), lambda request: request.id > 2**32),
    "no arguments": (strategies.requests(), lambda request: request.args == {}),
    "an integer beyond 64 bits": (
        strategies.json_values(),
        lambda value: type(value) is int and abs(value) > 2**64 - 1,
    ),
    "a negative zero": (strategies.json_values(), lambda value: repr(value) == "-0.0"),
    "a NUL in a text": (strategies.texts(), lambda text: "\0" in text),
    "a text outside of the basic plane": (
        strategies.texts(),
        lambda text: any(ord(one) > 0xFFFF for one in text),
    ),
    "a failure without an id": (strategies.replies(), lambda reply: reply.id is None),
    "a failure with everything": (
        strategies.error_infos(),
        lambda info: None not in (info.traceback, info.code, info.status, info.retry_after_s, info.retryable),
    ),
    "an event of no request": (strategies.events(), lambda event: event.id is None),
    "a nested type": (strategies.signature_texts(), lambda text: "list[dict[str, " in text),
    "an arrow in a description": (strategies.signature_objects(), lambda drawn: "description" in drawn),
    "an optional input left out": (
        st.just("a: int | None, b -> c").flatmap(strategies.inputs_for),
        lambda inputs: "a" not in inputs,
    ),
    "the longest session id": (
        strategies.session_ids(),
        lambda text: len(text.encode()) == MAX_SESSION_ID_BYTES,
    ),
    "a session without programs but with a model": (
        strategies.session_records(),
        lambda record: record.lm is not None and not record.programs,
    ),
    "death before an answer": (
        strategies.fault_plans(Exit),
        lambda plan: isinstance(plan.steps[0], Exit) and plan.steps[0].status.signal == 9,
    ),
    "two answers": (
        strategies.fault_plans(Reply),
        lambda plan: sum(isinstance(step, Reply) for step in plan.steps) > 1,
    ),
    "a header of four times 255": (
        strategies.fault_plans(Oversize),
        lambda plan: any(getattr(step, "size", 0) == 2**32 - 1 for step in plan.steps),
    ),
    "a stray byte": (strategies.fault_plans(Raw), lambda plan: Raw(b"\0") in plan.steps),
    "the longest duration": (
        strategies.pool_settings(),
        lambda drawn: 1e9 in drawn.values(),
    ),
    "a pool of the highest size": (strategies.pool_settings(), lambda drawn: drawn.get("pool_size") == 2**63),
    "many settings at once": (strategies.pool_settings(), lambda drawn: len(drawn) > 30),
    "a lazy pool without a floor": (
        strategies.simulated_settings(),
        lambda drawn: drawn["lazy"] and drawn.get("min_idle") == 0,
    ),
}


@pytest.mark.parametrize("edge", EDGES)
def test_strategies_reach_the_edges(edge: str) -> None:
    """What breaks programs is drawn within a bounded search."""
    strategy, is_there = EDGES[edge]
    find(strategy, is_there, settings=thorough)


@pytest.mark.parametrize("reason", ["type", "range", "missing", "conflict", "unknown"])
def test_invalid_settings_are_wrong_in_every_way(reason: str) -> None:
    """Each reason for a refusal is drawn."""
    find(strategies.invalid_settings(), lambda drawn: drawn.reason == reason, settings=thorough)
