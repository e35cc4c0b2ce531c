"""The command `repair`: dry run first, just what was asked for, a cap, and going on after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdc_platform import wiring
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.cli.main import main
from cdc_platform.clients.kafka.tombstones import Tombstone
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.source import Inspection
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from cdc_platform.snapshots.request import Request
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.ports import VerificationPorts
from cdc_platform.verification.proof.completeness import ShardRange
from cdc_platform.verification.proof.verdicts import KeyDifference, ShardVerdict, Verdict
from cdc_platform.verification.repair import reemit as repair
from cdc_platform.verification.repair import repair_plan
from cdc_platform.verification.repair.foreign_rows import Foreign
from tests.defs.harness import Harness, topology


class Killed(BaseException):
    """As kill -9: nothing of the process runs any more."""


class Fleet:
    """A platform in memory whose topic lacks rows until they are re-emitted."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(cache_dir=str(root / "cache"), audit_dir=str(root / "audit"))
        self.harness = Harness(settings=self.settings)
        self.harness.put(topology())
        self.missing: dict[str, set[str]] = {}
        self.extra: dict[str, set[int]] = {}
        self.waves: list[tuple[str, Request]] = []
        self.tombstones: list[Tombstone] = []
        self.die_after: int | None = None
        self.proofs: list[str] = []
        self.unproven: dict[str, Verdict] = {}
        self.kill_removal_after: int | None = None
        self.removed: Callable[[], None] = lambda: None

    def verdict(self, shard: str, run_id: str, samples: int) -> ShardVerdict:
        missing, extra = sorted(self.missing.get(shard, ())), sorted(self.extra.get(shard, ()))
        if (kind := self.unproven.get(shard)) is not None:
            return ShardVerdict(
                dataset="pins", table="pins", shard=shard, verdict=kind, reason="no key", run_id=run_id,
                checked_at=datetime.now(UTC), topic="cdc.pins.pins", source="db:3306",
            )  # fmt: skip
        named = [KeyDifference(key=json.dumps({"id": key}), kind="missing") for key in missing]
        named += [KeyDifference(key=json.dumps({"id": n}), kind="extra", partition=0, offset=n) for n in extra]
        return ShardVerdict(
            dataset="pins", table="pins", shard=shard,
            verdict=Verdict.MISMATCHED if missing or extra else Verdict.PROVEN, reason="", run_id=run_id,
            checked_at=datetime.now(UTC), topic="cdc.pins.pins", source="db:3306", missing=len(missing),
            extra=len(extra), samples=tuple(named[:samples]),
        )  # fmt: skip

    # What the repair asks of the outside.

    def verify_shards(self, outside: Any, found: Any, part: ShardRange, *, run_id: str, policy: Any = None) -> Any:
        self.proofs.append(run_id)
        return tuple(self.verdict(shard, run_id, policy.samples if policy else 20) for shard in part.shards)

    def backfill(self, outside: Any, request: Request, run_id: str, tell: Any) -> None:
        if self.die_after is not None and len(self.waves) >= self.die_after:
            raise Killed
        if run_id in [name for name, _ in self.waves]:
            return  # as a backfill that is over is joined
        self.waves.append((run_id, request))
        for shard in request.shards:
            self.missing[shard] = {key for key in self.missing.get(shard, ()) if key not in request.conditions[shard]}

    def inspect(self) -> Inspection:
        shape = Shape(engine=Engine.MARIADB, columns=(Column(name="id", type="varchar"),), key=("id",))
        return Inspection(shape=shape)

    def fetch(self, partition: int, offsets: list[int]) -> dict[int, tuple[bytes, bytes]]:
        return {offset: (b"key-%d" % offset, b"row") for offset in offsets}

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    found = Fleet(tmp_path)

    @contextmanager
    def open_platform(settings: Settings) -> Iterator[Platform]:
        with found.harness.platform() as platform:
            yield platform

    @contextmanager
    def open_snapshots(platform: Platform) -> Iterator[Any]:
        yield type("Snapshots", (), {"writer": staticmethod(lambda name: platform.state), "platform": platform})

    def send(self: Any, topic: str, tombstones: list[Tombstone]) -> None:
        if found.kill_removal_after is not None and len(found.tombstones) >= 1_000 * found.kill_removal_after:
            raise Killed
        found.tombstones += tombstones
        found.removed()
        for one in tombstones:
            for rows in found.extra.values():
                rows.discard(int(one.key.removeprefix(b"key-")))

    monkeypatch.setattr(Settings, "load", classmethod(lambda cls, *args, **kwargs: found.settings))
    monkeypatch.setattr(wiring, "open_platform", open_platform)
    monkeypatch.setattr(wiring, "open_snapshots", open_snapshots)
    outside: Callable[[Platform], VerificationPorts] = lambda platform: VerificationPorts(  # noqa: E731
        platform=platform, records=lambda topic: found, source=lambda *args: found,  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    monkeypatch.setattr(wiring, "verification_of", outside)
    monkeypatch.setattr(repair, "verify_shards", found.verify_shards)
    monkeypatch.setattr(repair_plan, "verify_shards", found.verify_shards)
    monkeypatch.setattr(repair, "_backfill", found.backfill)
    monkeypatch.setattr(repair.RepairPorts, "tombstones", send)
    return found


def called(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["repair", "pins", "pins", *arguments], catch_exceptions=True)


def test_repair_command_shows_first_and_changes_nothing(fleet: Fleet) -> None:
    fleet.missing = {"00001": {"7", "8"}}
    shown = called("--shard", "00001")
    assert shown.exit_code == 2, shown.output
    assert shown.stdout.startswith("Dry run: nothing was changed. Re-emit 2 keys of pins.pins in 1 shards.")
    assert '00001: 2 keys ("7", "8"), 0 extra' in shown.output
    assert (fleet.waves, fleet.missing) == ([], {"00001": {"7", "8"}})
    assert not [key for key in fleet.harness.state.documents if key.startswith("repair/")]
    done = called("--shard", "00001", "--apply")
    assert done.exit_code == 0, done.output
    assert "Re-emitted 2 keys of pins.pins; 1 of 1 shards proven" in done.output
    assert [request.conditions for _, request in fleet.waves] == [{"00001": "`id` IN ('7', '8')"}]
    assert [one.verdict for one in AuditFrame(fleet.settings.audit_dir).latest("pins", "pins")] == [Verdict.PROVEN]
    assert called("--shard", "00001").exit_code == 0


def test_repair_command_of_named_keys_re_emits_just_those(fleet: Fleet) -> None:
    shown = called("--keys", "00000:5", "--keys", "00002:x", "--json")
    assert (shown.exit_code, fleet.proofs, fleet.waves) == (2, [], [])
    assert [(s["shard"], s["emit"]) for s in json.loads(shown.stdout)["shards"]] == [
        ("00000", [["5"]]),
        ("00002", [["x"]]),
    ]
    done = called("--keys", "00000:5", "--keys", "00002:x", "--apply")
    assert done.exit_code == 0, done.output
    # One wave, in which each shard has its own keys.
    assert [(r.shards, r.conditions) for _, r in fleet.waves] == [
        (("00000", "00002"), {"00000": "`id` IN ('5')", "00002": "`id` IN ('x')"})
    ]


def test_repair_command_from_a_verdict_looks_at_what_that_run_found_mismatched(fleet: Fleet) -> None:
    fleet.missing = {"00000": {"1"}, "00001": {"2"}, "00002": {"3"}}
    audit = AuditFrame(fleet.settings.audit_dir)
    audit.write(
        [fleet.verdict("00001", "nightly", 20), replace(fleet.verdict("00002", "nightly", 20), verdict=Verdict.PENDING)]
    )
    audit.write([fleet.verdict("00000", "other", 20)])
    fleet.missing["00001"] = {"2", "9"}  # what differs now counts, not what did then
    done = called("--from-verdict", "nightly", "--apply")
    # That run did not prove 00002: it is named, not looked at.
    assert done.exit_code == 2, done.output
    assert "1 of 2 shards proven; left alone: 00002" in done.output
    assert "00002: left alone: pending in run nightly" in done.output
    assert [r.conditions for _, r in fleet.waves] == [{"00001": "`id` IN ('2', '9')"}]
    unknown = called("--from-verdict", "never")
    assert unknown.exit_code == 1
    assert "no verdict of pins.pins is of run 'never'" in unknown.output


@pytest.mark.parametrize("kind", [Verdict.UNVERIFIABLE, Verdict.PENDING])
def test_repair_command_says_which_shard_it_could_not_prove_and_does_not_exit_0(fleet: Fleet, kind: Verdict) -> None:
    fleet.unproven = {"00000": kind}
    assert called("--shard", "00001").exit_code == 0
    shown = called("--shard", "00000")
    assert (shown.exit_code, f"00000: left alone: {kind}: no key" in shown.output) == (2, True)
    done = called("--shard", "00000", "--apply")
    assert done.exit_code == 2, done.output
    assert "Re-emitted 0 keys of pins.pins; 0 of 1 shards proven; left alone: 00000;" in done.output
    assert f"00000: left alone: {kind}: no key" in done.output
    # Beside a shard that is repaired it does not count as proven either.
    fleet.missing = {"00001": {"7"}}
    both = called("--shard", "00000", "--shard", "00001", "--apply")
    assert both.exit_code == 2, both.output
    assert "1 of 2 shards proven; left alone: 00000" in both.output
    assert not [key for key in fleet.harness.state.documents if key.startswith("repair/")]


def test_repair_command_of_a_run_that_proved_nothing_says_so(fleet: Fleet) -> None:
    AuditFrame(fleet.settings.audit_dir).write(
        [replace(fleet.verdict("00002", "nightly", 20), verdict=Verdict.UNVERIFIABLE, reason="no right")]
    )
    shown = called("--from-verdict", "nightly")
    assert (shown.exit_code, fleet.proofs) == (2, [])
    assert "00002: left alone: unverifiable in run nightly: no right" in shown.output


def test_repair_command_killed_remembers_what_it_left_alone(fleet: Fleet) -> None:
    fleet.missing, fleet.unproven, fleet.die_after = {"00001": {"7"}}, {"00000": Verdict.PENDING}, 0
    with pytest.raises(Killed):
        called("--shard", "00000", "--shard", "00001", "--apply")
    (name,) = {key.split("/")[1] for key in fleet.harness.state.documents if key.startswith("repair/")}
    fleet.die_after = None
    done = called("--continue", name, "--apply")
    assert done.exit_code == 2, done.output
    assert "1 of 2 shards proven; left alone: 00000" in done.output


def test_repair_command_has_a_cap(fleet: Fleet) -> None:
    fleet.missing = {"00000": {str(n) for n in range(11)}}
    refused = called("--shard", "00000", "--cap", "10", "--apply")
    assert (refused.exit_code, fleet.waves) == (1, [])
    assert "11 keys differ, 10 are allowed: 11 to re-emit, 0 extra" in refused.output
    assert "Allow them with --cap 11. A backfill re-emits whole shards; it removes no extra row." in refused.output
    assert called("--shard", "00000", "--cap", "11", "--apply").exit_code == 0


def test_repair_command_shows_the_true_numbers_above_its_cap_and_removes_in_batches(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "REMOVE_ROWS", 1_000)
    monkeypatch.setattr(repair_plan, "RECORD_BYTES", 10_000)
    fleet.extra = {"00001": set(range(12_345))}
    shown = called("--shard", "00001", "--tombstones")
    assert shown.exit_code == 2, shown.output
    assert "12345 extra rows get tombstones." in shown.output
    assert "Add --apply --cap 12345 to do it." in shown.output
    assert "00001: 0 keys, 12345 extra" in shown.output
    refused = called("--shard", "00001", "--tombstones", "--apply")
    assert (refused.exit_code, fleet.tombstones) == (1, [])
    assert "0 to re-emit, 12345 extra" in refused.output and "backfill" not in refused.output
    fleet.kill_removal_after = 3
    with pytest.raises(Killed):
        called("--shard", "00001", "--tombstones", "--cap", "12345", "--apply")
    assert len(fleet.tombstones) == 3_000
    records = [key for key in fleet.harness.state.documents if key.startswith("repair/")]
    assert len(records) > 10
    fleet.kill_removal_after = None
    (name,) = {key.split("/")[1] for key in records}
    done = called("--continue", name, "--apply")
    assert done.exit_code == 0, done.output
    assert "12345 extra rows removed; 1 of 1 shards proven" in done.output
    assert not [key for key in fleet.harness.state.documents if key.startswith("repair/")]


def test_repair_command_removes_the_rows_of_a_shard_that_is_gone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"gone": 3}

    def find(*args: Any, most: int) -> dict[str, Foreign]:
        return {
            name: Foreign(rows=rows[name], places=tuple((0, n) for n in range(min(most, rows[name]))))
            for name in args[4]
            if rows.get(name)
        }

    monkeypatch.setattr(repair_plan, "find_foreign", find)
    monkeypatch.setattr(repair, "find_foreign", find)
    unknown = called("--shard", "misspelt", "--tombstones")
    assert (unknown.exit_code, "has no shard 'misspelt'" in unknown.output) == (1, True)
    careful = called("--shard", "gone", "--apply")
    assert (careful.exit_code, "has no shard 'gone'" in careful.output, fleet.tombstones) == (1, True, [])
    foreign = replace(fleet.verdict("00000", "found", 20), foreign_rows=3, foreign_shards=("gone",))
    AuditFrame(fleet.settings.audit_dir).write([foreign])
    careful = called("--from-verdict", "found", "--apply")
    assert (careful.exit_code, fleet.tombstones) == (2, [])
    assert "gone: left alone: its rows are left in the topic" in careful.output
    shown = called("--from-verdict", "found", "--tombstones")
    assert shown.exit_code == 2 and "gone: 0 keys, 3 extra" in shown.output
    monkeypatch.setattr(fleet, "removed", lambda: rows.clear())
    done = called("--from-verdict", "found", "--tombstones", "--apply")
    assert done.exit_code == 0, done.output
    assert "3 extra rows removed; 0 of 0 shards proven, 1 shards that are gone have no row left" in done.output
    assert [one.headers["cdc.shard"] for one in fleet.tombstones] == ["pins.gone"] * 3


def test_repair_command_wants_one_way_to_say_what(fleet: Fleet) -> None:
    for arguments in ([], ["--keys", "00000:1", "--shard", "00000"]):
        refused = called(*arguments)
        assert refused.exit_code == 64
        assert "Say what to repair" in refused.output


def test_repair_command_takes_shards_and_tables_as_all_commands_do(fleet: Fleet) -> None:
    fleet.missing = {"00001": {"7", "8"}}
    shown = CliRunner().invoke(main, ["repair", "pins", "0-1", "--table", "pins"])
    assert shown.exit_code == 2 and "00001: 2 keys" in shown.stdout and "Note: " not in shown.stderr
    refused = CliRunner().invoke(main, ["repair", "pins", "0-1"])
    assert refused.exit_code == 64 and "Name one table by --table: pins, boards." in refused.stderr
    refused = CliRunner().invoke(main, ["repair", "pins", "1", "9", "--table", "pins"])
    assert refused.exit_code == 1 and "no shard '9'" in refused.stderr


def test_repair_command_leaves_extra_rows_alone_unless_it_is_told(fleet: Fleet) -> None:
    fleet.extra = {"00001": {41, 42}}
    careful = called("--shard", "00001", "--apply")
    assert careful.exit_code == 2, careful.output
    assert (fleet.tombstones, fleet.extra) == ([], {"00001": {41, 42}})
    shown = called("--shard", "00001", "--tombstones")
    assert "2 extra rows get tombstones" in shown.output
    assert fleet.tombstones == []
    done = called("--shard", "00001", "--tombstones", "--apply")
    assert done.exit_code == 0, done.output
    assert [(one.partition, one.key, one.headers["cdc.shard"]) for one in fleet.tombstones] == [
        (0, b"key-41", "pins.00001"),
        (0, b"key-42", "pins.00001"),
    ]


def test_repair_command_killed_in_its_middle_goes_on_by_its_id(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "WAVE_KEYS", 2)
    fleet.missing = {"00000": {"a", "b", "c"}, "00001": {"d"}}
    fleet.die_after = 1
    with pytest.raises(Killed):
        called("--shard", "00000", "--shard", "00001", "--apply")
    (name,) = {key.split("/")[1] for key in fleet.harness.state.documents if key.startswith("repair/")}
    assert [run for run, _ in fleet.waves] == [f"repair-{name}-0"]
    fleet.die_after = None
    proofs = len(fleet.proofs)
    done = called("--continue", name, "--apply")
    assert done.exit_code == 0, done.output
    # The first wave is joined, not sent again; nothing is looked for again.
    assert [(run, r.shards) for run, r in fleet.waves] == [
        (f"repair-{name}-0", ("00000", "00001")),
        (f"repair-{name}-1", ("00000",)),
    ]
    assert fleet.proofs[proofs:] == [f"{name}-proof"]
    assert not [key for key in fleet.harness.state.documents if key.startswith("repair/")]
    again = called("--continue", name)
    assert (again.exit_code, "is no unfinished repair" in again.output) == (1, True)
