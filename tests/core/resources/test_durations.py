from __future__ import annotations

import datetime as dt
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.resources.durations import Duration, format_duration
from pilot_identity.core.resources.timestamps import format_timestamp
from tests.core.builders import NOW
from tests.core.schema import schema_of

moments = st.builds(
    lambda seconds, zone: NOW.astimezone(zone) + dt.timedelta(microseconds=seconds),
    st.integers(-(10**15), 10**15),
    st.timezones(),
)

SHORTEST = {
    "45s": "45s",
    "90s": "1m30s",
    "60m": "1h",
    "90m": "1h30m",
    "24h": "24h",
    "720h": "720h",
    "0h5m": "5m",
    "1h0m1s": "1h1s",
    "000001s": "1s",
    "999999h999999m999999s": "1016943h25m39s",
}
REFUSED = {
    "nothing": "",
    "no unit": "15",
    "no figure": "m",
    "an unknown unit": "1d",
    "milliseconds": "5ms",
    "a fraction": "1.5h",
    "a sign": "-5m",
    "units out of order": "5m1h",
    "a blank within": "1h 5m",
    "a newline after": "5m\n",
    "seven digits": "1000000s",
    "zero": "0s",
    "zero in every unit": "0h0m0s",
}


@pytest.mark.parametrize("written, shortest", SHORTEST.items())
def test_a_duration_is_written_in_its_shortest_form(written: str, shortest: str) -> None:
    """What is read as a length of time is written so that it reads back the same."""
    assert str(Duration.parse(written)) == shortest


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_duration_is_refused_by_the_rule(text: str) -> None:
    """The message says what a duration is, and what was found instead."""
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        Duration.parse(text)


@given(st.integers(min_value=1, max_value=999_999 * 3600))
def test_writing_and_reading_are_inverse(seconds: int) -> None:
    """Any whole number of seconds survives the way out and back."""
    duration = Duration(seconds=seconds)
    assert Duration.parse(str(duration)) == duration
    assert repr(duration) == f"Duration('{duration}')"


@given(st.from_regex(r"\A([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?\Z"))
def test_what_the_crd_admits_is_read(text: str) -> None:
    """Whatever the API server's pattern and its "longer than zero" let through can be parsed."""
    spec = schema_of("taskgrants")["properties"]["spec"]["properties"]["duration"]
    assert re.search(spec["pattern"], text)
    if any(digit in text for digit in "123456789"):
        assert Duration.parse(text).total_seconds() > 0
    else:
        with pytest.raises(ValueError, match="duration"):
            Duration.parse(text)


def test_a_span_for_a_message_has_whole_seconds() -> None:
    """Messages cut fractions, and say zero as such."""
    assert format_duration(dt.timedelta(minutes=90, microseconds=999_999)) == "1h30m"
    assert format_duration(dt.timedelta(0)) == "0s"


@given(moments)
def test_a_timestamp_is_utc_to_the_millisecond(moment: dt.datetime) -> None:
    """Any zone is written as UTC, less than a millisecond early and never late."""
    written = format_timestamp(moment)
    read = dt.datetime.fromisoformat(written)
    assert written.endswith("Z")
    assert dt.timedelta(0) <= moment - read < dt.timedelta(milliseconds=1)
