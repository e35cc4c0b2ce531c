"""The platform's errors as failures of a run."""

from __future__ import annotations

import dagster as dg
import pytest

from cdc_platform.defs.failures import as_failure
from cdc_platform.errors import KafkaUnavailable


def test_an_error_of_the_platform_fails_the_step_with_its_sentence_and_is_not_retried() -> None:
    error = KafkaUnavailable("Kafka did not answer.", where="kafka:9092", cure="See that it runs.")
    with pytest.raises(dg.Failure) as caught, as_failure():
        raise error
    assert caught.value.description == str(error)
    assert caught.value.allow_retries is False
    assert caught.value.metadata["error"].value == "KafkaUnavailable"
    assert caught.value.__cause__ is error


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), as_failure():
        raise ZeroDivisionError
