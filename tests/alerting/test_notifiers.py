"""Alerts sent to real receivers; secrets stay references."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP

from cdc_platform.clients.notifiers import AppriseNotifiers
from cdc_platform.errors import AlertUndelivered, SecretUnresolved, SettingsError
from cdc_platform.model.alert_messages import Event, Message, Severity
from cdc_platform.settings import AlertTarget, Settings
from tests.alerting.receivers import HttpReceiver, SmtpReceiver, served

MESSAGE = Message(
    id="m1", incident="i1", route="r", event=Event.FIRING, severity=Severity.CRITICAL, title="[CRITICAL] down",
    body="500 shards are down.\nOwner: ann", created=datetime(2026, 1, 2, tzinfo=UTC),
)  # fmt: skip


def notifiers(tmp_path: Path, url: str, **fields: object) -> AppriseNotifiers:
    secrets = tmp_path / "alerts.properties"
    secrets.write_text(f"url={url}\n")
    return AppriseNotifiers(targets={"r": AlertTarget(url=f"${{file:{secrets}:url}}", **fields)})  # type: ignore[arg-type]


def test_alerts_reach_a_webhook(tmp_path: Path) -> None:
    with served(HttpReceiver()) as receiver:
        sender = notifiers(tmp_path, f"json://user:hunter2@{receiver.address}/hook")
        sender.send(MESSAGE)
        sender.send(replace(MESSAGE, event=Event.RECOVERED))
    first, second = receiver.got
    assert first["title"] == "[CRITICAL] down"
    assert "500 shards are down." in first["message"]
    assert "Id: m1" in first["message"]
    assert (first["type"], second["type"]) == ("failure", "success")


def test_alerts_reach_a_mailbox(tmp_path: Path) -> None:
    with served(SmtpReceiver()) as receiver:
        url = f"mailto://127.0.0.1:{receiver.port}/?from=cdc@example.org&to=ann@example.org&mode=insecure"
        notifiers(tmp_path, url).send(MESSAGE)
    assert receiver.recipients == ["ann@example.org"]
    (mail,) = receiver.got
    assert mail["Subject"] == "[CRITICAL] down"
    assert "500 shards are down." in mail.get_body(("plain", "html")).get_content()


def test_alerts_reach_a_slack_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Slack's host stands in the library; all else is as it would be sent there.
    with served(HttpReceiver()) as receiver:
        receiver.answer = b"ok"
        monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", f"http://{receiver.address}/services")
        sender = notifiers(tmp_path, "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/%23alerts")
        sender.send(MESSAGE)
        receiver.answer = b"invalid_token"
        with pytest.raises(AlertUndelivered) as refused:
            sender.send(MESSAGE)
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in str(refused.value)
    assert receiver.paths[0] == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    (attachment,) = receiver.got[0]["attachments"]
    assert (receiver.got[0]["channel"], attachment["title"]) == ("#alerts", "[CRITICAL] down")
    assert "500 shards are down." in attachment["text"]


def test_alerts_open_an_incident_at_pagerduty_and_the_recovery_resolves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(HttpReceiver()) as receiver:
        for region in ("us", "eu"):
            monkeypatch.setitem(PAGERDUTY_API_LOOKUP, region, f"http://{receiver.address}/v2/enqueue")
        sender = notifiers(tmp_path, "pagerduty://R0UT1NGKEY0123456789@AP1KEY/cdc-platform/cdc")
        sender.send(MESSAGE)
        sender.send(replace(MESSAGE, id="m2", event=Event.RECOVERED))
    first, second = receiver.got
    assert (first["event_action"], first["dedup_key"], first["routing_key"]) == (
        "trigger", MESSAGE.incident, "R0UT1NGKEY0123456789",
    )  # fmt: skip
    assert "500 shards are down." in first["payload"]["summary"]
    assert second == {"event_action": "resolve", "dedup_key": MESSAGE.incident, "routing_key": "R0UT1NGKEY0123456789"}


def test_alerts_that_are_not_taken_are_an_error_without_the_secret(tmp_path: Path) -> None:
    with served(HttpReceiver()) as receiver:
        receiver.refuse = 1
        with pytest.raises(AlertUndelivered) as refused:
            notifiers(tmp_path, f"json://user:hunter2@{receiver.address}").send(MESSAGE)
    with pytest.raises(AlertUndelivered) as gone:
        notifiers(tmp_path, f"json://user:hunter2@{receiver.address}").send(MESSAGE)
    with pytest.raises(SettingsError) as unknown:
        notifiers(tmp_path, "nonsense://hunter2").send(MESSAGE)
    assert "hunter2" not in f"{refused.value}{gone.value}{unknown.value}"


def test_alerts_to_a_missing_secret_or_route_name_it(tmp_path: Path) -> None:
    sender = AppriseNotifiers(targets={"r": AlertTarget(url=f"${{file:{tmp_path}/none:url}}")})
    with pytest.raises(SecretUnresolved, match="none:url"):
        sender.send(MESSAGE)
    with pytest.raises(SettingsError, match="nobody"):
        sender.send(replace(MESSAGE, route="nobody"))


def test_a_watchdog_is_called(tmp_path: Path) -> None:
    with served(HttpReceiver()) as receiver:
        notifiers(tmp_path, f"http://{receiver.address}/ping/hunter2", watchdog=True).ping("r")
    assert receiver.pings == ["/ping/hunter2"]
    with pytest.raises(AlertUndelivered) as error:
        notifiers(tmp_path, f"http://{receiver.address}/ping/hunter2", watchdog=True).ping("r")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ('[alerts.a]\nurl = "slack://T0/B0/secret"', "alerts.a.url"),
        ("[alerts.a]\nowners = []", "alerts.a.url"),
        ('[alerts.a]\nurl = "${env:U}"\nseverities = ["awful"]', "alerts.a.severities"),
        ('[alerts.a]\nurl = "${env:U}"\nowners = "ann"', "alerts.a.owners"),
        ('[alerts.a]\nurl = "${env:U}"\nwatchdog = "yes"', "alerts.a.watchdog"),
        ('[alerts.a]\nurl = "${env:U}"\nto = "ann"', "alerts.a.to"),
        ("alerts = 3", "alerts"),
    ],
)
def test_a_bad_alert_route_is_named(tmp_path: Path, table: str, field: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(table)
    with pytest.raises(SettingsError) as error:
        Settings.load(file, {})
    assert error.value.field == field
    assert "secret" not in error.value.message.replace("reference to a secret", "")


def test_alert_routes_are_read_from_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        'dagster_url = "https://dagster"\n[alerts.pager]\nurl = "${env:PAGER}"\nowners = ["ann"]\n'
        'severities = ["critical"]\n[alerts.dog]\nurl = "${env:DOG}"\nwatchdog = true\n'
    )
    found = Settings.load(file, {})
    assert found.dagster_url == "https://dagster"
    assert found.alerts["pager"] == AlertTarget(url="${env:PAGER}", owners=("ann",), severities=("critical",))
    assert found.alerts["dog"].watchdog


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
def test_alerts_that_a_mail_server_refuses_are_an_error_without_the_secret(tmp_path: Path, command: str) -> None:
    with served(SmtpReceiver()) as receiver:
        receiver.refuse = command
        sender = notifiers(tmp_path, f"mailto://127.0.0.1:{receiver.port}/?from=a@b.org&to=hunter2@b.org&mode=insecure")
        with pytest.raises(AlertUndelivered) as refused:
            sender.send(MESSAGE)
        assert "hunter2" not in str(refused.value)
        receiver.refuse = ""
        sender.send(MESSAGE)
    assert len(receiver.got) == 1


def test_alerts_to_a_mail_server_that_is_not_there_are_an_error(tmp_path: Path) -> None:
    with served(SmtpReceiver()) as receiver:
        url = f"mailto://127.0.0.1:{receiver.port}/?from=a@b.org&to=c@b.org&mode=insecure"
    with pytest.raises(AlertUndelivered):
        notifiers(tmp_path, url).send(MESSAGE)


def test_a_receiver_that_takes_the_call_and_says_nothing_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.clients.notifiers._TIMEOUT", 0.5)
    with served(HttpReceiver()) as receiver:
        receiver.hang.set()
        began = time.monotonic()
        with pytest.raises(AlertUndelivered):
            notifiers(tmp_path, f"json://{receiver.address}").send(MESSAGE)
        assert time.monotonic() - began < 10
        receiver.go_on.set()


def test_a_plugin_that_breaks_is_an_error_of_its_route_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: object, **kwargs: object) -> bool:
        raise KeyError("hunter2")

    monkeypatch.setattr("apprise.plugins.custom_json.NotifyJSON.notify", breaks)
    with pytest.raises(AlertUndelivered) as caught:
        notifiers(tmp_path, "json://127.0.0.1:1").send(MESSAGE)
    assert "KeyError" in str(caught.value)
    assert "hunter2" not in str(caught.value)
