"""The form of the benchmarks: by turns, ratios, goals, and the page that is made of kept results."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS, RESULTS, kept, main, sizes_of
from benchmarks.form import Form, Goal, Spread
from benchmarks.page import PAGE, page


def form() -> Form:
    return Form(name="x", sizes={"rows": 10}, show=lambda text: None)


def test_both_sides_run_by_turns_and_take_turns_to_begin() -> None:
    order: list[str] = []

    def side(name: str, number: float) -> Callable[[], float]:
        def call() -> float:
            order.append(name)
            return number

        return call

    found = form().in_turn("reads", "s", side("ours", 3.0), side("other", 2.0), other_side="raw", rounds=3)
    assert order == ["ours", "other", "other", "ours", "ours", "other"]
    assert (found.ratios, found.met) == (Spread(1.5, 1.5, 1.5, 3), True)


def test_a_ratio_is_of_its_own_round_and_the_median_is_judged() -> None:
    made = form()
    found = made.compare("reads", "s", [1.0, 4.0, 9.0], [1.0, 2.0, 3.0], other_side="raw", goal=Goal(at_most=1.5))
    assert found.ratios == Spread(1.0, 2.0, 3.0, 3)
    assert found.sentence() == "reads: 1 / 4 / 9 s, raw 1 / 2 / 3 s, ratio 1 / 2 / 3 (goal: at most 1.5) MISSED"
    made.compare("rows", "a second", [8.0], [2.0], other_side="stock", goal=Goal(at_least=2.0))
    made.condition("nothing is lost", False, "2 of 10 events")
    assert made.missed() == ["reads 2 (at most 1.5)", "nothing is lost: 2 of 10 events"]
    assert made.document()["comparisons"][1]["goal"] == {"at_least": 2.0}


@pytest.mark.parametrize(
    ("goal", "ratio", "said"),
    [
        (Goal(at_most=1.4, limit=2.0, cause="why"), 1.4, ""),
        (Goal(at_most=1.4, limit=2.0, cause="why"), 1.9, "short, as known"),
        (Goal(at_most=1.4, limit=2.0, cause="why"), 2.1, "MISSED"),
        (Goal(at_least=1.0, limit=0.3, cause="why"), 0.3, "short, as known"),
        (Goal(at_least=1.0, limit=0.3, cause="why"), 0.2, "MISSED"),
    ],
)
def test_a_goal_that_is_known_to_be_out_of_reach_fails_only_beyond_its_limit(
    goal: Goal, ratio: float, said: str
) -> None:
    made = form()
    found = made.compare("reads", "s", [ratio], [1.0], other_side="raw", goal=goal)
    assert found.sentence().partition(")")[2].strip() == said
    assert (found.met, bool(made.short()), bool(made.missed())) == (not said, "short" in said, said == "MISSED")
    assert Goal(**made.document()["comparisons"][0]["goal"]) == goal


def test_sides_of_different_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        form().compare("reads", "s", [1.0, 2.0], [1.0], other_side="raw")
    with pytest.raises(ValueError, match="nothing was measured"):
        form().figure("reads", "s", [])


def test_sizes_are_full_quick_or_given() -> None:
    module: Any = SimpleNamespace(__name__="benchmarks.x", SIZES={"rows": (1000, 10), "parts": ("a,b", "a")})
    assert sizes_of(module, [], quick=False) == {"rows": 1000, "parts": "a,b"}
    assert sizes_of(module, ["rows=7"], quick=True) == {"rows": 7, "parts": "a"}
    with pytest.raises(ValueError, match="has no size lines"):
        sizes_of(module, ["lines=7"], quick=True)


def test_an_engine_is_a_size_of_those_that_run_by_engine() -> None:
    one: Any = SimpleNamespace(__name__="benchmarks.x", SIZES={"engine": ("mariadb", "mariadb")})
    several: Any = SimpleNamespace(__name__="benchmarks.y", SIZES={"engines": ("mariadb,postgres", "mariadb")})
    assert sizes_of(one, [], quick=True, engine="mysql") == {"engine": "mysql"}
    assert sizes_of(several, [], quick=True, engine="mysql,postgres") == {"engines": "mysql,postgres"}
    with pytest.raises(ValueError, match="there is no engine oracle; there are mariadb, mysql, postgres"):
        sizes_of(several, ["engines=mysql,oracle"], quick=True)
    with pytest.raises(ValueError, match="there is no engine mysql,postgres"):
        sizes_of(one, [], quick=True, engine="mysql,postgres")
    with pytest.raises(ValueError, match=r"benchmarks\.z does not run by engine"):
        sizes_of(SimpleNamespace(__name__="benchmarks.z", SIZES={}), [], quick=True, engine="mysql")  # type: ignore[arg-type]


def test_what_is_no_benchmark_is_named_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reconcile", "nonsense"])
    assert caught.value.code == 2
    assert "there is no benchmark nonsense; there are duplicates," in capsys.readouterr().err


def test_the_page_is_made_of_the_results_that_are_kept() -> None:
    results = kept()
    assert PAGE.read_text() == page(results)
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(BENCHMARKS)


def test_a_page_shows_ratio_goal_and_what_was_missed() -> None:
    made = form()
    made.compare("reads", "s", [4.0], [2.0], other_side="raw", goal=Goal(at_most=1.5))
    slow = Goal(at_least=0.8, limit=0.3, cause="one after another")
    made.compare("rows", "a second", [5.0], [10.0], other_side="stock", goal=slow)
    made.figure("written", "bytes", [1234.0])
    made.condition("nothing is lost", True, "0 of 10 events")
    result = json.loads(json.dumps(made.document())) | {
        "about": "Reads.", "date": "2026-01-02", "quick": True, "minutes": 0.1, "versions": {"python": "3.11.7"},
        "machine": {"processor": "P", "cores": 2, "memory_gb": 8, "kernel": "6"}, "load": {"before": 1.0, "after": 2.0},
    }  # fmt: skip
    text = page([result])
    assert "| reads | s | 4 | raw | 2 | **2** | at most 1.5 **missed** |" in text
    assert "| rows | a second | 5 | stock | 10 | **0.5** | at least 0.8 *not reached*, limit 0.3 |" in text
    assert "*rows* is not reached: one after another" in text
    assert "| written | bytes | 1,234 |" in text
    assert "| nothing is lost | 0 of 10 events | met |" in text
