"""Rewards of one's own whose code fails before it scores anything: the reward and what was wrong are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, RewardError
from drpo_rewards.rewards.checks import describe
from drpo_rewards.rewards.in_process import score_items
from drpo_rewards.serving.operate.declared import read_declared_models, read_request_checks

WHOLE = """
class Mine:
    version = "1"
    {more}
    def score(self, items):
        return [0.0] * len(items)
"""


@pytest.fixture
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`module:Mine`, of a module with the code that the test names."""
    name = f"own_{abs(hash(request.param))}"  # Python imports a module once
    (tmp_path / f"{name}.py").write_text(request.param)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:Mine"


def made(more: str) -> str:
    return WHOLE.format(more=more)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('usage: mine.py FILE')", "cannot be loaded: SystemExit: usage: mine.py FILE"),
        ("def (", r"cannot be loaded: SyntaxError: invalid syntax \(own_\d+.py, line 1\)"),
        ("Mine = 3", "is a int, not a class"),
        ("import none_of_this", "No module named 'none_of_this'"),
        ("Yours = 3", "has no attribute 'Mine'"),
        (made("def __init__(self): open('/none/such')"), "cannot be built: FileNotFoundError: .*/none/such"),
        (made("def __init__(self): raise SystemExit('two\\nlines')"), "cannot be built: SystemExit: two lines"),
        (made("files = lambda: 1 / 0"), "cannot say which files it reads: ZeroDivisionError"),
        (made("score = property(lambda self: 1 / 0)").replace("def score", "def other"), "cannot be built: ZeroDiv"),
    ],
    indirect=["kind"],
)
def test_what_cannot_be_built_is_named(kind: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"reward '{kind}':? .*{problem}"):
        rewards.create(kind, {})


@pytest.mark.parametrize("kind", [":Mine", ".own:Mine"])
def test_what_is_no_name_of_a_module(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"reward '{kind}' cannot be loaded: "):
        rewards.load_class(kind)


def test_a_fault_in_the_catalogue_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "check_option_names", lambda *_: None)
    with pytest.raises(ZeroDivisionError), rewards.code_of("geneval", "cannot be built"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (made("version = 3"), "describes itself wrongly: version: Input should be a valid string"),
        (made("range = (0, 1, 2)"), "describes itself wrongly: range"),
        (made("metrics = ('size',)"), "describes itself wrongly: metrics.0: "),
        (made("metadata_schema = 'none'"), "cannot describe itself: "),
        (made("license = property(lambda self: 1 / 0)"), "cannot describe itself: ZeroDivisionError"),
    ],
    indirect=["kind"],
)
def test_what_describes_itself_wrongly_is_named(kind: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"reward 'mine' {problem}"):
        describe("mine", rewards.create(kind, {}))


@pytest.mark.parametrize("kind", [made("metrics = ('size',)")], indirect=True)
def test_a_wrong_description_is_told_before_the_start(kind: str, tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(f"rewards: {{mine: {{type: '{kind}'}}}}")
    with pytest.raises(ConfigError, match="reward 'mine' describes itself wrongly: metrics"):
        read_declared_models(str(tmp_path / "service.yaml"))


@pytest.mark.parametrize("kind", [made("check_request = staticmethod(lambda prompt, metadata: 1 / 0)")], indirect=True)
def test_a_check_of_requests_that_fails_is_named(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    elsewhere = "{type: 'none_of_this:Yours', runtime_env: {pip: [none-of-this]}}"
    file.write_text(f"rewards: {{mine: {{type: '{kind}'}}, yours: {elsewhere}}}")
    checks = read_request_checks(str(file))
    assert list(checks) == ["mine"]  # the class of the other one may be in its replicas' environment only
    with pytest.raises(ConfigError, match=f"reward '{kind}' cannot check a request: ZeroDivisionError"):
        checks["mine"]("a prompt", {"size": 3})


def test_a_reward_that_ends_the_process_fails_alone() -> None:
    class Ends:
        version = "1"

        def score(self, items: object) -> list[float]:
            raise SystemExit(0)

    with pytest.raises(RewardError, match="reward 'ends' failed: SystemExit"):
        score_items("ends", Ends(), [rewards.checks.probe(Ends())], 1)  # type: ignore[arg-type, attr-defined, list-item]
