"""What a worker is believed to hold, against what it holds."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from dspex_pool.session_store import ProgramRecord, SessionRecord
from dspex_pool.session_table import Session
from dspex_pool.worker_memory import DefaultModel, Step, WorkerMemory


def session(session_id: str = "s") -> Session:
    return Session(SessionRecord(id=session_id, created_at=0.0, last_used=0.0))


def keep(owner: Session, program_id: str, signature: str, state: dict[str, Any] | None = None) -> None:
    """Commit a program to a session."""
    owner.revision += 1
    owner.record.programs[program_id] = ProgramRecord(
        id=program_id,
        definition={"signature": signature},
        state=state,
        revision=owner.revision,
        created_at=0.0,
    )


def carry_out(memory: WorkerMemory, steps: list[Step]) -> list[str]:
    """Note that all steps were sent and answered; return their commands."""
    for step in steps:
        memory.begin(step)
        memory.note(step)
    return [step.command for step in steps]


def test_worker_is_told_what_it_lacks_and_no_more() -> None:
    """Default model, the session's own one, the program with its state; once each, and again when it changes."""
    memory, owner = WorkerMemory(), session()
    keep(owner, "p", "a -> b", {"k": 1})
    default = DefaultModel(1, {"model": "m/1"})
    steps = memory.missing(owner, "p", default)
    loading = {"program_id": "p", "definition": {"signature": "a -> b"}, "session_id": "s", "state": {"k": 1}}
    assert steps == [Step("configure_lm", default.args, 1), Step("load_program", loading, 1)]
    carry_out(memory, steps)
    assert memory.missing(owner, "p", default) == []
    keep(owner, "p", "a -> c")
    assert [step.command for step in memory.missing(owner, "p", default)] == ["load_program"]
    assert memory.missing(owner, "unknown", default) == memory.missing(owner, None, default) == []
    owner.record.lm, owner.lm_secrets, owner.lm_revision = {"model": "m/own"}, {"api_key": "k"}, 1
    (step,) = memory.missing(owner, None, DefaultModel(2, {"model": "m/2"}))
    assert step.args == {"model": "m/own", "api_key": "k", "session_id": "s"}
    assert memory.missing(owner, None, default, needs_model=False) == []
    assert carry_out(memory, memory.missing(None, None, DefaultModel(2, {}))) == ["configure_lm"]


def test_ended_session_is_cleaned_before_one_of_the_same_id_is_served() -> None:
    """Nothing of the ended one counts as held by the new one, though the revisions are the same."""
    memory, old, new = WorkerMemory(), session(), session()
    assert memory.note_ended("s") is False
    for owner in (old, new):
        keep(owner, "p", "a -> b")
        owner.record.lm, owner.lm_revision = {"model": "m/1"}, 1
    carry_out(memory, memory.missing(old, "p", None))
    assert memory.note_ended("s") is True
    assert memory.clearing("s", "p") == []
    commands = ["cleanup_session", "configure_lm", "load_program"]
    assert carry_out(memory, memory.missing(new, "p", None)) == commands
    assert memory.missing(new, "p", None) == memory.cleaning() == []
    assert memory.clearing("s", "p") == [Step("delete_program", {"program_id": "p", "session_id": "s"})]
    carry_out(memory, memory.clearing("s", "p"))
    assert memory.clearing("s", "p") == []
    memory.meet("other")
    assert memory.sessions == {"s", "other"}
    assert memory.note_ended("other") is True, "whatever a command has left there"


def test_session_that_ends_while_a_worker_is_told_of_it_is_cleaned_up() -> None:
    """From the moment that something is about to be sent, the worker may hold it."""
    owner = session()
    keep(owner, "p", "a -> b")
    owner.record.lm, owner.lm_revision = {"model": "m/1"}, 1
    for step in WorkerMemory().missing(owner, "p", None):
        memory = WorkerMemory()
        memory.begin(step)
        assert memory.note_ended("s") is True
        memory.note(step)
        assert carry_out(memory, memory.cleaning()) == ["cleanup_session"]
        assert memory.sessions == frozenset()


def test_program_whose_removal_was_left_unanswered_is_told_again() -> None:
    """Who made it anew was cancelled while the old copy was removed; others were told that it does not exist."""
    memory, owner = WorkerMemory(), session()
    keep(owner, "p", "a -> b")
    carry_out(memory, memory.missing(owner, "p", None))
    (removal,) = memory.clearing("s", "p")
    memory.begin(removal)
    assert [step.command for step in memory.missing(owner, "p", None)] == ["load_program"]
    assert memory.clearing("s", "p") == [removal]


def test_confirmation_counts_only_for_what_was_marked() -> None:
    """What came after the mark is not overwritten by the news of an older commit."""
    memory, owner = WorkerMemory(), session()
    keep(owner, "p", "a -> b")
    old, new = memory.doubt_program("s", "p"), memory.doubt_program("s", "p")
    memory.confirm_program("s", "p", old, 1)
    assert [step.command for step in memory.missing(owner, "p", None)] == ["load_program"]
    memory.confirm_program("s", "p", new, 1)
    assert memory.missing(owner, "p", None) == []
    for owner_id in (None, "s"):
        old, new = memory.doubt_model(owner_id), memory.doubt_model(owner_id)
        memory.confirm_model(owner_id, old, 5)
        assert memory.model_of(owner_id) == new
        memory.confirm_model(owner_id, new, 5)
        assert memory.model_of(owner_id) == 5


class Bridge:
    """What a worker really holds: models and programs by session, ``None`` for the default model."""

    def __init__(self) -> None:
        self.models: dict[str | None, str] = {}
        self.programs: dict[str, dict[str, str]] = {}

    def carry_out(self, step: Step) -> None:
        args = step.args
        session_id: str = args.get("session_id", "")
        if step.command == "configure_lm":
            self.models[args.get("session_id")] = args["model"]
        elif step.command == "load_program":
            signature = args["definition"]["signature"]
            self.programs.setdefault(session_id, {})[args["program_id"]] = signature
        elif step.command == "delete_program":
            self.programs.get(session_id, {}).pop(args["program_id"], None)
        else:
            self.programs.pop(session_id, None)
            self.models.pop(session_id, None)

    @property
    def sessions(self) -> set[str]:
        held = {session_id for session_id, programs in self.programs.items() if programs}
        return held | {session_id for session_id in self.models if session_id is not None}


class Story:
    """Random things happen to sessions and to one worker, at any moment of its being told."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = itertools.count(1)
        self.memory, self.bridge = WorkerMemory(), Bridge()
        self.sessions = {name: session(name) for name in "st"}
        self.default: DefaultModel | None = None
        #: Sessions of which the worker has heard nothing since one of that id ended.
        self.unheard: set[str] = set()

    # Few of each, mostly the same: what is rare in life is frequent here.
    def some_session(self) -> str:
        """Choose a session."""
        return self.random.choice("ssst")

    def some_program(self) -> str:
        """Choose a program."""
        return self.random.choice("pppq")

    def happen(self) -> None:
        """Let something happen elsewhere, in the pool or on another worker."""
        name, number = self.some_session(), next(self.numbers)
        owner = self.sessions[name]
        match self.random.choice("kkkkdlme"):
            case "k":
                keep(owner, self.some_program(), f"a -> b{number}")
            case "d":
                owner.record.programs.pop(self.some_program(), None)
            case "l":
                owner.lm_revision += 1
                owner.record.lm = {"model": f"m/{number}"}
            case "m":
                self.default = DefaultModel(number, {"model": f"m/{number}"})
            case _:
                self.sessions[name] = session(name)
                self.memory.note_ended(name)
                self.unheard.add(name)

    def tell(self, steps: list[Step], owner: Session) -> bool:
        """Send steps while other things happen; some are lost before they take effect, some afterwards."""
        for step in steps:
            if self.random.random() < 0.2:
                self.happen()
            if self.sessions[owner.id] is not owner:
                return False
            self.memory.begin(step)
            self.unheard.discard(owner.id)
            if self.random.random() < 0.1:
                self.happen()
            fate = self.random.random()
            if fate > 0.05:
                self.bridge.carry_out(step)
            if fate < 0.1:
                return False
            if self.random.random() < 0.2:
                self.happen()
            self.memory.note(step)
        return True

    def run(self) -> None:
        """Run a program, and check what it runs as."""
        owner = self.sessions[self.some_session()]
        program_id = self.some_program()
        program, default = owner.program(program_id), self.default
        steps = self.memory.missing(owner, program_id, default)
        expected = None if program is None else program.definition["signature"]
        model = owner.record.lm or (default.args if default is not None else {"model": None})
        if not self.tell(steps, owner) or program is None:
            return
        assert self.bridge.programs[owner.id][program_id] == expected
        assert self.bridge.models.get(owner.id, self.bridge.models.get(None)) == model["model"]

    def create(self) -> None:
        """Create a program here; its commit may fail, and others may change it meanwhile."""
        owner, program_id = self.sessions[self.some_session()], self.some_program()
        steps = self.memory.missing(owner, None, self.default) + self.memory.clearing(owner.id, program_id)
        if owner.program(program_id) is not None or not self.tell(steps, owner):
            return
        held = self.bridge.programs.setdefault(owner.id, {})
        assert program_id not in held, "a copy of an old one is in the way"
        mark = self.memory.doubt_program(owner.id, program_id)
        self.unheard.discard(owner.id)
        held[program_id] = signature = f"a -> b{next(self.numbers)}"
        while self.random.random() < 0.5:
            # The worker was given back; others have it before the commit is through.
            self.random.choice([self.happen, self.run])()
        if self.random.random() < 0.7 and self.sessions[owner.id] is owner:
            keep(owner, program_id, signature)
            self.memory.confirm_program(owner.id, program_id, mark, owner.revision)

    def clean(self) -> None:
        """Have the worker forget what has ended, and check that nothing of it is left."""
        for step in self.memory.cleaning():
            self.memory.begin(step)
            self.bridge.carry_out(step)
            self.memory.note(step)
        assert self.bridge.sessions <= self.memory.sessions - self.unheard


@pytest.mark.parametrize("seed", range(5))
def test_worker_runs_what_the_session_says_whatever_happens_meanwhile(seed: int) -> None:
    """In a random story of changes, ends, losses and half-told workers, no old program or model ever runs."""
    story = Story(seed)
    for _ in range(400):
        story.random.choice([story.happen, story.run, story.run, story.run, story.create, story.clean])()
