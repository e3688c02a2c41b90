"""The configuration refuses what is wrong, names it, and knows where each value came from."""

from __future__ import annotations

import math
import pickle
import string
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.config import PROFILES, PoolConfig, PoolOptions, SettingRow, settings_table, sources
from dspex_pool.config.rules import Seconds, SecondsRange
from dspex_pool.config.settings import settings_of
from dspex_pool.errors import InvalidConfigError
from tests.cases import case
from tests.search_profiles import depth

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

SETTINGS = settings_of(PoolConfig)
SECONDS = [name for name, setting in SETTINGS.items() if isinstance(setting.rule, Seconds)]
OPTIONAL = [name for name, setting in SETTINGS.items() if setting.is_optional]

#: For each kind of value one that is right, as text and as value, and one that is wrong, likewise.
EXAMPLES: dict[str, tuple[str, Any, str, Any]] = {
    "Flag": ("yes", True, "maybe", 1),
    "Whole": ("17", 17, "1.5", 1.5),
    "Seconds": ("0.5", 0.5, "soon", "0.5"),
    "SecondsRange": ("1, 2.5", (1.0, 2.5), "2,1", (2.0, 1.0)),
    "Pairs": ("A=1,B=x=y", {"A": "1", "B": "x=y"}, "A", {"A": 1}),
    "Words": ("a, b", ("a", "b"), "a,,b", "ab"),
}
SPECIAL: dict[str, tuple[str, Any, str, Any]] = {
    "min_idle": ("3", 3, "-1", -1),
    "idle_order": ("fifo", "fifo", "FIFO", "random"),
    "start_method": ("template", "template", "fork", True),
    "affinity": ("strict", "strict", "", None),
    "session_store": ("sqlite:/tmp/a b.db", "sqlite:/tmp/a b.db", "sqlite:", "postgres:x"),
    "python": ("/usr/bin/python3", "/usr/bin/python3", "a\0b", 3),
    "handler": ("my.work:Handler", "my.work:Handler", "my.work.Handler", "my work:Handler"),
    "worker_cwd": ("/tmp", "/tmp", "/a\0", b"/tmp"),
    "backoff_max": ("9", 9.0, "soon", None),
    "close_timeout": ("9", 9.0, "soon", None),
}


def example_of(key: str) -> tuple[str, Any, str, Any]:
    return SPECIAL.get(key) or EXAMPLES[type(SETTINGS[key].rule).__name__]


def load(**overrides: Any) -> PoolConfig:
    """Load without any influence of the surroundings."""
    overrides.setdefault("environ", {})
    return PoolConfig.load(**overrides)


def write_toml(folder: Path, text: str, name: str = "pool.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- values ------------------------------------------------------------------------------------------


def test_defaults_are_accepted_and_canonical() -> None:
    """A pool without any settings is configured, and its defaults are in the form that checks give."""
    config = PoolConfig()
    for name, setting in SETTINGS.items():
        assert getattr(config, name) == setting.default
        assert type(getattr(config, name)) is type(setting.default)


def test_setting_is_accepted_and_read_back() -> None:
    """Each setting is taken as argument and holds the value afterwards: none is dropped."""
    for key in SETTINGS:
        _text, value, _bad_text, _bad = example_of(key)
        assert getattr(PoolConfig(**{key: value}), key) == value


def test_setting_is_refused_when_wrong() -> None:
    """A wrong value is refused at construction with its name, value, range and source. [property 75]"""
    for key in SETTINGS:
        wrong = example_of(key)[3]
        with pytest.raises(InvalidConfigError) as caught:
            PoolConfig(**{key: wrong})
        error = caught.value
        assert (error.key, error.source) == (key, "argument")
        assert error.allowed == SETTINGS[key].allowed
        assert error.value == ("(hidden)" if key == "worker_env" else wrong)
        assert key in error.message
        assert SETTINGS[key].rule.allowed in error.message


def test_duration_is_refused_when_it_is_none() -> None:
    """Zero, negative, infinite, undefined and absurd durations are refused, whatever their type. [property 75]"""
    no_durations: list[Any] = [0, 0.0, -1, math.inf, -math.inf, math.nan, 2e9, 10**400, True, "1"]
    for key in SECONDS:
        for wrong in no_durations:
            with pytest.raises(InvalidConfigError, match=key):
                PoolConfig(**{key: wrong})


def test_setting_is_refused_when_none_is_not_allowed() -> None:
    """None is a value only where it has a meaning."""
    for key in [name for name in SETTINGS if name not in OPTIONAL]:
        nothing: dict[str, Any] = {key: None}
        with pytest.raises(InvalidConfigError, match=key):
            PoolConfig(**nothing)


def test_setting_is_none_when_asked() -> None:
    """None is taken where it has a meaning, and the words say so."""
    for key in OPTIONAL:
        nothing: dict[str, Any] = {key: None}
        assert getattr(PoolConfig(**nothing), key) is None
        assert SETTINGS[key].allowed.endswith(", or none")


def test_value_is_refused_at_the_edge_of_its_range() -> None:
    """The first value outside a range is refused."""
    cases: list[dict[str, Any]] = [
        {"pool_size": 0},
        {"pool_size": True},
        {"pool_size": 2.0},
        {"max_overflow": -1},
        {"nice": 20},
        {"nice": -21},
        {"limit_open_files": 15},
        # Told with the first worker, as more than a hard limit of -1.
        *({f"limit_{what}": 2**63} for what in ("address_space", "cpu_seconds", "open_files")),
        {"max_frame_bytes": 2**32},
        {"max_lifetime": (1.0,)},
        {"max_lifetime": (0.0, 1.0)},
        {"max_lifetime": (1.0, math.inf)},
        {"max_lifetime": "12"},
        {"command": ()},
        {"command": "python worker.py"},
        {"allow": ("a", "")},
        {"allow": ("a", 3)},
        {"handler": ":Class"},
        {"handler": "a..b:Class"},
        {"session_store": "sqlite: "},
        {"session_store": "sqlite"},
        {"worker_env": {"A=B": "x"}},
        {"worker_env": {"": "x"}},
        {"worker_env": {"A": "x\0"}},
        {"worker_env": [("A", "x")]},
    ]
    for wrong in cases:
        with case(wrong):
            with pytest.raises(InvalidConfigError, match=next(iter(wrong))):
                PoolConfig(**wrong)


def test_max_waiting_of_zero_means_that_nobody_waits() -> None:
    """Zero callers in line is a policy, not a mistake."""
    assert PoolOptions(max_waiting=0).max_waiting == 0


def test_whole_seconds_become_a_float() -> None:
    """A duration is a float however it was written."""
    assert type(PoolOptions(ping_timeout=3).ping_timeout) is float


def test_long_value_is_cut_in_the_error() -> None:
    """The message stays readable however long the value, even one that Python does not spell out."""
    cases: dict[str, Any] = {
        "text": "x" * 100_000 + "\0",
        "long": 10**100,
        "longer": 10**5_000,
    }
    for name, wrong in cases.items():
        with case(name):
            with pytest.raises(InvalidConfigError) as caught:
                PoolConfig(python=wrong)
            assert len(caught.value.message) < 500


def test_config_is_refused_when_frozen() -> None:
    """A configuration cannot be changed behind the pool's back."""
    with pytest.raises(AttributeError):
        PoolConfig().pool_size = 9  # type: ignore[misc]  # what is tested


def test_config_keeps_its_own_copy_of_the_environment() -> None:
    """What the caller does with its dictionary afterwards changes nothing."""
    environment = {"A": "1"}
    config = PoolConfig(worker_env=environment)
    environment["A"] = "2"
    assert config.worker_env == {"A": "1"}


def key_of_refusal(**overrides: Any) -> str | None:
    """Load, and return the key that was refused, if one was."""
    try:
        load(**overrides)
    except InvalidConfigError as error:
        return error.key
    return None


NAMES = st.text(string.ascii_letters + "_é ")
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.floats())
)


@settings(max_examples=depth(10, 1000))
@given(NAMES.filter(lambda name: name not in {"cls", "profile", "file", "environ", *SETTINGS}), ANYTHING)
def test_unknown_name_is_refused_whatever_it_is(name: str, value: object) -> None:
    """No name but those of the settings is taken, and nothing but InvalidConfigError is raised."""
    assert key_of_refusal(**{name: value}) == name


@settings(max_examples=depth(10, 1000))
@given(st.sampled_from(list(SETTINGS)), ANYTHING)
def test_value_is_taken_or_refused_by_its_own_name(key: str, value: object) -> None:
    """No value makes anything but a configuration or one InvalidConfigError of its key."""
    assert key_of_refusal(**{key: value}) in {None, key}


@settings(max_examples=depth(10, 1000))
@given(st.sampled_from(list(SETTINGS)), st.text())
def test_variable_is_taken_or_refused_by_its_own_name(key: str, text: str) -> None:
    """No text in a variable makes anything but a configuration or one InvalidConfigError of its key."""
    assert key_of_refusal(environ={SETTINGS[key].variable: text}) in {None, key}


# --- values against each other -----------------------------------------------------------------------


def test_settings_are_refused_when_they_contradict() -> None:
    """Two values that are fine alone and not together are refused, and both are named. [property 75]"""
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"backoff_min": 5.0}, {"backoff_max": 4.0}),
        ({"min_idle": 6}, {"pool_size": 5}),
        ({"terminate_grace": 9.0}, {"close_timeout": 8.0}),
        ({"leak_warning_after": 9.0}, {"lease_timeout": 8.0}),
        ({"max_waiting": 0}, {"lazy": True}),
        ({"max_waiting": 0}, {"min_idle": 0}),
        ({"python": "python3"}, {"command": ("worker",)}),
        ({"handler": "a:B"}, {"command": ("worker",)}),
        ({"allow": ("a",)}, {"command": ("worker",)}),
    ]
    for first, second in cases:
        with case(first, second):
            with pytest.raises(InvalidConfigError) as caught:
                PoolConfig(**first, **second)
            assert caught.value.key == next(iter(first))
            for name, value in (first | second).items():
                assert f"{name} = {value!r} (from argument)" in caught.value.message


def test_settings_are_accepted_when_they_are_equal_or_one_is_off() -> None:
    """The bound itself is allowed, and a setting that is off contradicts nothing."""
    cases: list[dict[str, Any]] = [
        {"backoff_min": 5.0, "backoff_max": 5.0},
        {"min_idle": 4, "pool_size": 4},
        {"terminate_grace": 8.0, "close_timeout": 8.0},
        {"leak_warning_after": 9.0, "lease_timeout": None},
        {"leak_warning_after": None, "lease_timeout": 9.0},
        {"max_lifetime": (7.0, 7.0)},
        {"max_waiting": 0, "lazy": True, "min_idle": 1},
    ]
    for both in cases:
        with case(both):
            assert PoolConfig(**both)


@pytest.mark.parametrize(
    ("given_", "default"),
    [({"terminate_grace": 31.0}, "close_timeout"), ({"close_timeout": 4.0}, "terminate_grace")],
    ids=str,
)
def test_contradiction_blames_the_value_that_was_given(given_: dict[str, Any], default: str) -> None:
    """A value that nobody gave is named as default, and the error is about the other."""
    with pytest.raises(InvalidConfigError, match=rf"{default} = \S+ \(from default\)") as caught:
        PoolOptions(**given_)
    assert (caught.value.key, caught.value.source) == (next(iter(given_)), "argument")


def test_floor_follows_min_idle_and_laziness() -> None:
    """An eager pool keeps all its workers, a lazy one none, unless min_idle says otherwise."""
    cases: dict[str, tuple[PoolOptions, int]] = {
        "eager": (PoolOptions(pool_size=3), 3),
        "lazy": (PoolOptions(pool_size=3, lazy=True), 0),
        "lazy-with-floor": (PoolOptions(pool_size=3, lazy=True, min_idle=2), 2),
        "eager-without-floor": (PoolOptions(pool_size=3, min_idle=0), 0),
    }
    for name, (options, floor) in cases.items():
        assert options.floor == floor, name


# --- unknown names -----------------------------------------------------------------------------------


def test_unknown_argument_is_refused_with_the_nearest_name() -> None:
    """A slip of the pen is answered with the name that was meant."""
    with pytest.raises(InvalidConfigError, match="did you mean pool_size") as caught:
        load(poolsize=3)
    assert (caught.value.key, caught.value.allowed, caught.value.source) == (
        "poolsize",
        "pool_size",
        "argument",
    )


def test_unknown_argument_is_refused_with_all_names_when_none_is_near() -> None:
    """A name out of the blue is answered with what there is."""
    with pytest.raises(InvalidConfigError, match=r"known are affinity, allow, .*worker_env"):
        load(zzz=3)


def test_unknown_argument_is_refused_by_the_constructor() -> None:
    """No constructor drops a name in silence."""
    with pytest.raises(TypeError, match="poolsize"):
        PoolOptions(poolsize=3)  # type: ignore[call-arg]  # what is tested


def test_unknown_variable_is_refused_with_the_nearest_name() -> None:
    """A misspelled variable does not pass for configured."""
    with pytest.raises(InvalidConfigError, match="did you mean DSPEX_POOL_POOL_SIZE") as caught:
        load(environ={"DSPEX_POOL_SIZE": "3"})
    assert caught.value.key == "DSPEX_POOL_SIZE"


def test_variable_is_ignored_when_it_is_not_a_setting() -> None:
    """The mark of a running pool and the variables of a Kubernetes service of this name are no mistakes."""
    cases: list[str] = [
        "DSPEX_POOL_RUN",
        "DSPEX_POOL_SERVICE_HOST",
        "DSPEX_POOL_SERVICE_PORT",
        "DSPEX_POOL_SERVICE_PORT_HTTP",
        "DSPEX_POOL_PORT",
        "DSPEX_POOL_PORT_80_TCP_ADDR",
        "DSPEX_POOLSIDE",
        "POOL_SIZE",
    ]
    for variable in cases:
        with case(variable):
            assert load(environ={variable: "anything"}) == PoolConfig()


def test_unknown_key_in_toml_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    """A misspelled key in a file is named with its file."""
    path = write_toml(tmp_path, "lasy = true\n")
    with pytest.raises(InvalidConfigError, match="did you mean lazy") as caught:
        load(file=path)
    assert caught.value.source == f"{path}:top level"


# --- environment -------------------------------------------------------------------------------------


def test_variable_is_parsed_by_the_type_of_its_setting() -> None:
    """Each setting can be given as text, and its source is the variable."""
    for key in SETTINGS:
        text, value, _bad_text, _bad = example_of(key)
        config = load(environ={f"DSPEX_POOL_{key.upper()}": text})
        assert getattr(config, key) == value
        assert config.sources[key] == f"DSPEX_POOL_{key.upper()}"


def test_variable_is_refused_when_its_text_is_wrong() -> None:
    """A text that is no such value is refused under the name of the variable."""
    for key in SETTINGS:
        variable = f"DSPEX_POOL_{key.upper()}"
        with pytest.raises(InvalidConfigError, match=variable) as caught:
            load(environ={variable: example_of(key)[2]})
        assert (caught.value.key, caught.value.source) == (key, variable)


def test_variable_switches_off_when_it_says_none() -> None:
    """The word none and the empty text are None where that is allowed."""
    for text in ["none", "None", "", " "]:
        with case(text):
            assert load(environ={"DSPEX_POOL_HEALTH_CHECK_INTERVAL": text}).health_check_interval is None


@pytest.mark.parametrize("text", ["none", ""])
def test_variable_is_refused_when_none_is_not_allowed(text: str) -> None:
    """A setting that needs a value is not silently left at its default."""
    with pytest.raises(InvalidConfigError, match="pool_size"):
        load(environ={"DSPEX_POOL_POOL_SIZE": text})


def test_variable_of_a_flag_takes_the_usual_words() -> None:
    """Flags may be written in any of the ways that people write them."""
    cases: list[tuple[str, bool]] = [
        ("true", True),
        ("ON", True),
        ("1", True),
        ("no", False),
        ("Off", False),
        ("0", False),
    ]
    for text, flag in cases:
        assert load(environ={"DSPEX_POOL_LAZY": text}).lazy is flag, text


def test_variable_takes_json_when_commas_are_part_of_a_value() -> None:
    """Lists and mappings have a form in which every text can be written, and an empty one."""
    cases: list[tuple[str, str, object]] = [
        ("COMMAND", '["python", "-c", "a, b"]', ("python", "-c", "a, b")),
        ("ALLOW", "", ()),
        ("WORKER_ENV", '{"A": "1,2"}', {"A": "1,2"}),
        ("WORKER_ENV", "", {}),
    ]
    for variable, text, value in cases:
        with case(variable, text):
            assert getattr(load(environ={f"DSPEX_POOL_{variable}": text}), variable.lower()) == value


def test_variable_is_refused_when_its_json_is_broken() -> None:
    """Broken JSON is one clear error, however deep."""
    for text in ["[1", "[1]", "[" * 100_000]:
        with case(text):
            with pytest.raises(InvalidConfigError, match="allow"):
                load(environ={"DSPEX_POOL_ALLOW": text})


def test_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping of its own, load reads the real environment."""
    monkeypatch.setenv("DSPEX_POOL_POOL_SIZE", "7")
    assert PoolConfig.load().pool_size == 7


# --- TOML --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("pool_size = 7", "top level"),
        ("[dspex_pool]\npool_size = 7\n[else]\nx = 1", "dspex_pool"),
        ("[tool.dspex_pool]\npool_size = 7\n[tool.mypy]\nx = 1", "tool.dspex_pool"),
    ],
)
def test_file_is_read_from_any_of_its_tables(tmp_path: Path, text: str, table: str) -> None:
    """A file of our own, of a service or of a project holds settings, and the source names the table."""
    path = write_toml(tmp_path, text)
    config = load(file=path)
    assert config.pool_size == 7
    assert config.sources["pool_size"] == f"{path}:{table}"


def test_pyproject_of_the_working_directory_is_read(tmp_path: Path) -> None:
    """A project's settings hold without being named."""
    write_toml(tmp_path, "[tool.dspex_pool]\nlazy = true\n", "pyproject.toml")
    config = load()
    assert config.lazy is True
    assert config.sources["lazy"] == "pyproject.toml:tool.dspex_pool"


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "[dspex_pool]\nlazy = true\n", "tool = 1\n"])
def test_pyproject_of_the_working_directory_is_ignored_when_it_has_no_table(
    tmp_path: Path, text: str
) -> None:
    """A project that says nothing about pools changes nothing."""
    write_toml(tmp_path, text, "pyproject.toml")
    assert load() == PoolConfig()


def test_file_takes_all_kinds_of_values(tmp_path: Path) -> None:
    """TOML's own types are used; the word none stands for the null that TOML lacks."""
    text = 'max_lifetime = [1, 2.5]\nhealth_check_interval = "none"\nallow = ["a"]\nworker_env = {A = "1"}\n'
    config = load(file=write_toml(tmp_path, text))
    assert config.max_lifetime == (1.0, 2.5)
    assert config.health_check_interval is None
    assert config.allow == ("a",)
    assert config.worker_env == {"A": "1"}


def test_file_is_refused_when_it_holds_no_settings(tmp_path: Path) -> None:
    """A file that was named must be a file with settings."""
    cases: list[tuple[str, str]] = [
        ("pool_size = ", "is no TOML"),
        ("[project]\nname = 'x'\n[tool.x]\n", "has no table"),
        ("[tool.dspex_pool]\n[dspex_pool]\n", "has both"),
        ("dspex_pool = 3", "must be a table"),
        (f"pool_size = {'[' * 5000}", "is nested too deeply"),
    ]
    for text, problem in cases:
        with case(text):
            path = write_toml(tmp_path, text)
            with pytest.raises(InvalidConfigError, match=problem) as caught:
                load(file=path)
            assert (caught.value.key, caught.value.value, caught.value.source) == (
                "file",
                str(path),
                str(path),
            )


def test_file_is_refused_when_it_is_a_pyproject_without_our_table(tmp_path: Path) -> None:
    """The keys of a project are not taken for misspelled settings."""
    with pytest.raises(InvalidConfigError, match=r"no table \[tool\.dspex_pool\]"):
        load(file=write_toml(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml"))


def test_file_is_refused_when_it_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder or not UTF-8 is named with the reason."""
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InvalidConfigError, match="cannot be read"):
            load(file=path)
    (tmp_path / "latin.toml").write_bytes(b"handler = '\xe9'")
    with pytest.raises(InvalidConfigError, match="is no TOML"):
        load(file=tmp_path / "latin.toml")


def test_value_of_a_file_is_refused_with_the_file_as_source(tmp_path: Path) -> None:
    """A wrong value in a file is found by its file and table."""
    path = write_toml(tmp_path, "pool_size = '4'")
    with pytest.raises(InvalidConfigError, match="pool_size = '4'") as caught:
        load(file=path)
    assert caught.value.source == f"{path}:top level"


# --- profiles and precedence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "size", "lazy"), [("dev", 2, True), ("test", 4, False), ("prod", 6, False)]
)
def test_profile_sets_size_and_start(
    profile: str, size: int, lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each profile has its size and its way to start; that of production follows the cores."""
    monkeypatch.setattr(sources, "usable_cores", lambda: 6)
    config = load(profile=profile)
    assert (config.pool_size, config.lazy) == (size, lazy)
    assert config.sources["pool_size"] == f"profile {profile}"


def test_profile_is_valid_on_this_machine() -> None:
    """Every profile makes a valid configuration."""
    for profile in PROFILES:
        assert load(profile=profile).pool_size >= 1, profile


def test_usable_cores_are_counted_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system knows no affinity, all cores count, and an unknown number is one."""
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert sources.usable_cores() == 1


def test_profile_is_chosen_by_argument_before_variable_before_file(tmp_path: Path) -> None:
    """The nearer choice of a profile wins, and the farther leaves nothing behind."""
    path = write_toml(tmp_path, "profile = 'dev'")
    environ = {"DSPEX_POOL_PROFILE": "test"}
    assert load(profile="prod", environ=environ, file=path).sources["pool_size"] == "profile prod"
    assert load(environ=environ, file=path).sources["pool_size"] == "profile test"
    assert load(file=path).sources["lazy"] == "profile dev"
    assert load(environ={"DSPEX_POOL_PROFILE": ""}).sources["lazy"] == "default"


def test_profile_is_refused_when_unknown(tmp_path: Path) -> None:
    """A profile that does not exist is refused with its source, wherever it was chosen."""
    path = write_toml(tmp_path, "profile = 3")
    cases: list[tuple[dict[str, Any], object, str]] = [
        ({"profile": "production"}, "production", "argument"),
        ({"environ": {"DSPEX_POOL_PROFILE": "x"}}, "x", "DSPEX_POOL_PROFILE"),
        ({"file": path}, 3, f"{path}:top level"),
    ]
    for given_, value, source in cases:
        with pytest.raises(InvalidConfigError, match="dev, test, prod") as caught:
            load(**given_)
        assert (caught.value.key, caught.value.value, caught.value.source) == ("profile", value, source)


def test_nearer_source_wins(tmp_path: Path) -> None:
    """Argument before variable before file before profile before default."""
    path = write_toml(tmp_path, "pool_size = 30\nretries = 3\n")
    environ = {"DSPEX_POOL_POOL_SIZE": "20", "DSPEX_POOL_MAX_USES": "2"}
    config = load(profile="dev", file=path, environ=environ, pool_size=10)
    expected = {
        "pool_size": (10, "argument"),
        "max_uses": (2, "DSPEX_POOL_MAX_USES"),
        "retries": (3, f"{path}:top level"),
        "lazy": (True, "profile dev"),
        "nice": (None, "default"),
    }
    assert {key: (getattr(config, key), config.sources[key]) for key in expected} == expected
    assert load(file=path, environ=environ).pool_size == 20
    assert load(profile="dev", file=path).pool_size == 30


def test_contradiction_names_both_sources() -> None:
    """A contradiction between a variable and a profile says who said what."""
    with pytest.raises(InvalidConfigError) as caught:
        load(profile="dev", environ={"DSPEX_POOL_MIN_IDLE": "3"})
    assert "min_idle = 3 (from DSPEX_POOL_MIN_IDLE)" in caught.value.message
    assert "pool_size = 2 (from profile dev)" in caught.value.message
    assert caught.value.source == "DSPEX_POOL_MIN_IDLE"


# --- reading it back ---------------------------------------------------------------------------------


def test_sources_are_presumed_when_constructed_directly() -> None:
    """Without load, what differs from the default came from an argument."""
    known = PoolConfig(pool_size=3).sources
    assert (known["pool_size"], known["lazy"]) == ("argument", "default")
    assert set(known) == set(SETTINGS)


def test_sources_cannot_be_changed() -> None:
    """Nobody rewrites where a value came from."""
    with pytest.raises(TypeError):
        load().sources["lazy"] = "nowhere"  # type: ignore[index]  # what is tested


def test_replace_checks_and_keeps_the_other_sources() -> None:
    """A changed copy is checked like a new one and remembers where the rest came from."""
    config = load(profile="dev")
    changed = config.replace(pool_size=3)
    assert (config.pool_size, changed.pool_size, changed.lazy) == (2, 3, True)
    assert (changed.sources["pool_size"], changed.sources["lazy"]) == ("argument", "profile dev")
    with pytest.raises(InvalidConfigError, match="did you mean lazy"):
        config.replace(lazzy=True)
    with pytest.raises(InvalidConfigError, match="min_idle"):
        config.replace(min_idle=3)


def test_config_is_equal_by_its_values() -> None:
    """Where a value came from does not make a different configuration."""
    assert load(profile="test") == PoolConfig()
    assert load(profile="dev") != PoolConfig()


def test_describe_gives_every_setting_with_value_source_and_sentence() -> None:
    """The rows are all settings in order, ready for JSON."""
    rows = load(pool_size=3).describe()
    assert [row.key for row in rows] == list(SETTINGS)
    assert rows[0] == SettingRow("pool_size", 3, "argument", "Workers kept for normal load.")
    assert msgspec.json.decode(msgspec.json.encode(rows), type=list[SettingRow])[0] == rows[0]


def test_secrets_are_shown_nowhere() -> None:
    """Values of the workers' environment appear in no row, text or error, only their names."""
    config = load(worker_env={"API_KEY": "sk-123"})
    assert "sk-123" not in repr(config.describe())
    assert "API_KEY" in repr(config.describe())
    assert "sk-123" not in repr(config)
    assert "sk-123" not in str(config)
    for wrong in ({"worker_env": {"A": "sk-123\0"}}, {"environ": {"DSPEX_POOL_WORKER_ENV": "sk-123"}}):
        with pytest.raises(InvalidConfigError) as caught:
            load(**wrong)
        assert "sk-123" not in caught.value.message
        assert "sk-123" not in repr(caught.value.facts())


def test_repr_shows_only_what_differs() -> None:
    """A log line holds what was decided, not forty defaults."""
    assert repr(PoolConfig(pool_size=3, lazy=True)) == "PoolConfig(pool_size=3, lazy=True)"


def test_config_survives_json_and_pickle() -> None:
    """A configuration can be written down and read back, and is checked when it is."""
    config = PoolConfig(pool_size=3, max_lifetime=(1.0, 2.0), worker_env={"A": "1"})
    assert msgspec.json.decode(msgspec.json.encode(config), type=PoolConfig) == config
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(msgspec.ValidationError, match="pool_size"):
        msgspec.json.decode(b'{"pool_size": 0}', type=PoolConfig)


def test_setting_has_one_sentence_with_its_unit() -> None:
    """Each setting is explained in a sentence, and durations and sizes name their unit."""
    for key in SETTINGS:
        setting = SETTINGS[key]
        assert setting.doc[0].isupper()
        assert setting.doc.endswith(".")
        assert ". " not in setting.doc
        if isinstance(setting.rule, Seconds | SecondsRange):
            assert "econds" in setting.doc
        if "bytes" in key:
            assert "bytes" in setting.doc


def test_table_lists_every_setting_with_its_default() -> None:
    """The table for the documentation has one row for each setting."""
    lines = settings_table(PoolConfig).splitlines()
    assert len(lines) == 2 + len(SETTINGS)
    assert lines[2] == "| `pool_size` | `4` | Workers kept for normal load. | a whole number of at least 1 |"
    assert lines[6].startswith("| `min_idle` | `none` |")
    assert settings_table(PoolOptions).count("\n") < len(lines)
