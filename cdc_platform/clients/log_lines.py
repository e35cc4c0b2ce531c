"""Logs of our processes: one line a record, whatever strangers wrote into it."""

from __future__ import annotations

import logging
from typing import TextIO

from cdc_platform.model.masking import without_secrets
from cdc_platform.model.plain_text import for_log


class LogLines(logging.Formatter):
    """Spells out line ends and control characters of messages; lines of a traceback begin with a bar."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's own line."""
        record.message = for_log(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """A traceback, which its exception's text cannot leave."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  | {for_log(line)}" for line in without_secrets(text).split("\n"))


def log_to(stream: TextIO | None, level: int, form: str = logging.BASIC_FORMAT) -> None:
    """Set up logging of a process: to the stream, stderr if None."""
    logging.basicConfig(handlers=[log_handler(stream, form)], level=level)


def log_handler(stream: TextIO | None, form: str) -> logging.Handler:
    """To the stream, a line for each record."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogLines(form))
    return handler
