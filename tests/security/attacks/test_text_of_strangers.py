"""What strangers wrote is text where it goes, and secrets in it stay behind: random strings for each destination."""

from __future__ import annotations

import html.parser
import io
import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.cli.output import echo
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.clients.connect import wire
from cdc_platform.clients.log_lines import LogLines
from cdc_platform.clients.notifiers import AppriseNotifiers
from cdc_platform.model import plain_text
from cdc_platform.model.alert_messages import Event, Message, Severity
from cdc_platform.model.masking import without_secrets
from cdc_platform.settings import AlertTarget

SNIPPETS = [
    "\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x9b31m", "\r", "\n", "\u2028", "\u202e", "\u2066", "\ud800", "\x00", "\x7f",
    "`", "``", "`x`", "*b*", "_i_", "[a](http://evil.example)", "![a](http://evil.example/x.png)", "<http://evil>",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&amp;", "&lt;", '"', "'", "|", "\\", "# h", "- x",
    "@everyone", "@here", "<!channel>", "!channel>", "<@U123>", "@U123>", "<https://evil.example|bank>",
    "https://evil.example>", "[x]", "(y)", "~~s~~", "www.evil.example", "a@evil.example", "[bold red]x[/]",
    "[link=http://evil]x[/link]", "$x", "%s", "{x}", "orders.00001", "größe", "人", "👩\u200d👧", " ", "ab",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=6), max_size=6).map("".join)
MANY = settings(max_examples=300, deadline=None)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@MANY
@given(HOSTILE)
def test_a_terminal_is_not_controlled(text: str) -> None:
    shown = plain_text.for_terminal(text)
    assert not UNSEEN.search(shown)
    assert plain_text.for_terminal(shown) == shown
    assert json.loads(plain_text.for_terminal(json.dumps([text], ensure_ascii=False))) == [text]


@MANY
@given(HOSTILE, HOSTILE)
def test_a_log_has_a_line_for_each_record(text: str, other: str) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LogLines("%(levelname)s %(message)s"))
    logger = logging.Logger("strangers")
    logger.addHandler(handler)
    logger.warning("%s", text)
    try:
        raise ValueError(other)
    except ValueError:
        logger.exception("%s", text)
    lines = out.getvalue().split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not line.startswith("  | ")] == [lines[0], lines[1]]
    assert not any(UNSEEN.search(line) for line in lines)


class Tags(html.parser.HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@MANY
@given(HOSTILE)
def test_a_page_has_no_element_of_strangers(text: str) -> None:
    found = Tags(f"<p>{plain_text.for_html(text)}</p>")
    assert found.tags == ["p"]
    assert found.text == plain_text.for_terminal(text)


@MANY
@given(HOSTILE)
def test_markdown_has_no_markup_of_strangers(text: str) -> None:
    shown = plain_text.for_markdown(text)
    assert "\n" not in shown and not UNSEEN.search(shown)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", shown)
    assert not re.search(r"[\\`*_\[\]<>|~&@]|://|www\.", bare, re.IGNORECASE)
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown) == plain_text.for_log(text)


@MANY
@given(HOSTILE)
def test_a_code_span_is_not_ended_by_its_text(text: str) -> None:
    shown = plain_text.for_markdown_code(text)
    fence = re.match("`+", shown)
    assert fence is not None and "\n" not in shown
    inner = shown[fence.end() : -fence.end()]
    assert shown.endswith(fence.group()) and all(len(run) < fence.end() for run in re.findall("`+", inner))
    assert plain_text.for_log(text) in inner


class Sent:
    """Stands for the HTTP library of apprise: keeps what would go to a service."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.bodies.append(str(options.get("data")))

        class Answer:
            status_code, content, text, headers = 200, b"ok", "ok", dict[str, str]()

            def json(self) -> dict[str, bool]:
                return {"ok": True}

        return Answer()


SERVICES = {
    "slack": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
    "discord": "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
    "pagerduty": "pagerduty://intkey@apikey/source/component",
}


@pytest.mark.parametrize("service", SERVICES)
@settings(max_examples=60, deadline=None)
@given(text=HOSTILE, title=HOSTILE)
def test_an_alert_calls_nobody_and_links_nowhere(service: str, text: str, title: str) -> None:
    import requests

    sent = Sent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALERT_URL", SERVICES[service])
        for name in ("request", "post"):
            patch.setattr(requests, name, sent)
        AppriseNotifiers(targets={"r": AlertTarget(url="${env:ALERT_URL}")}).send(
            Message(
                id="1", incident="i", route="r", event=Event.FIRING, severity=Severity.CRITICAL,
                title=f"t {title}", body=f"b {text}", created=datetime.now(UTC),
            )
        )  # fmt: skip
    assert len(sent.bodies) >= 1
    for body in sent.bodies:
        strings = "\n".join(_strings(json.loads(body)))
        assert not UNSEEN.search(strings.replace("\r", ""))
        if service != "pagerduty":
            assert not re.search(r"@(everyone|here|U123)|<[!@]|<https?:|\]\(http", strings)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [value] if isinstance(value, str) else []


SECRET = "hunter2Zq"
SAYINGS = [
    f"jdbc:mysql://db:3306/x?user=cdc&password={SECRET}&useSSL=true",
    f"jdbc:postgresql://cdc:{SECRET}@db:5432/x",
    f"Access to https://user:{SECRET}@connect:8083/ failed",
    f"{{database.password={SECRET}, database.user=cdc}}",
    f'org.apache.kafka.common.security.scram.ScramLoginModule required username="w" password="{SECRET}";',
    f"Invalid value {SECRET} for configuration producer.override.sasl.jaas.config: no",
    f"Invalid value {SECRET}\nx for configuration database.password",
    f"sasl.oauthbearer.token={SECRET}",
    f'{{"password": "{SECRET}"}}',
    f"Authorization: Bearer {SECRET}",
    f"CREATE USER x IDENTIFIED BY '{SECRET}'",
    f"CREATE USER x IDENTIFIED VIA mysql_native_password USING '{SECRET}'",
    f"SET PASSWORD FOR x = PASSWORD('{SECRET}')",
    f"ALTER ROLE x PASSWORD '{SECRET}'",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    f"aws_secret_access_key = {SECRET}",
    f"Password: '{SECRET}'",
]


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize(
    "where", ["%s", "\tat x.y(Z.java:1)\nCaused by: java.lang.X: %s\n\tat z", "x" * 300_000 + " %s"]
)
def test_secrets_stay_behind(saying: str, where: str) -> None:
    text = where % saying
    assert SECRET not in without_secrets(text)
    assert SECRET not in (wire.shown_trace(text) or "")
    assert SECRET not in (wire.error_message(json.dumps({"error_code": 500, "message": text}).encode()) or "")


@pytest.mark.parametrize(
    "saying",
    [
        "Access denied for user 'cdc'@'db' (using password: YES)",
        'FATAL: password authentication failed for user "cdc"',
        "Invalid value x for configuration linger.ms: must be a number",
        "io.debezium.DebeziumException: no such table orders.customers",
    ],
)
def test_what_is_no_secret_stays(saying: str) -> None:
    assert without_secrets(saying) == saying


def test_echo_and_tables_show_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    echo("".join(SNIPPETS))
    table = Table("column \x1b[31m")
    for snippet in SNIPPETS:
        table.add_row(snippet)
    console = SafeConsole()
    console.print(table)
    console.print("[link=http://evil]x[/link] " + "".join(SNIPPETS))
    shown = capsys.readouterr().out
    assert not UNSEEN.search(shown)
    assert "[link=http://evil]x[/link]" in shown
