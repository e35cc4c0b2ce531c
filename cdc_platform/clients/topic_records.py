"""Moved to `cdc_platform.clients.kafka.topic_records`; this name goes with the release after 0.2."""

from cdc_platform.clients.kafka.topic_records import *  # noqa: F403
