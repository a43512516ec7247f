import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.cli.access import format_access, parse_access
from pilot_identity.cli.failures import UsageError

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
ACTIONS = st.lists(st.from_regex(r"[a-z0-9._:-]{1,12}", fullmatch=True), max_size=3)
RESOURCES = st.lists(st.from_regex(r"[A-Za-z0-9._~-]{1,8}(/\*)?(/\*\*)?", fullmatch=True), max_size=3)


@given(NAMES, ACTIONS, RESOURCES)
def test_writing_and_reading_are_inverses(name: str, actions: list[str], resources: list[str]) -> None:
    """Every entry that the API takes can be written on the command line."""
    expected = {"name": name} | ({"actions": actions} if actions else {})
    expected |= {"resources": resources} if resources else {}
    assert parse_access([format_access(name, actions, resources)]) == [expected]


@pytest.mark.parametrize(
    "texts, because",
    [
        ([""], "begins with the name"),
        (["Tickets"], "begins with the name"),
        (["tickets="], "an action is"),
        (["tickets=read,"], "an action is"),
        (["tickets=READ"], "an action is"),
        (["tickets@"], "segments"),
        (["tickets@/etc"], "segments"),
        (["tickets@a@b"], "segments"),
        (["tickets@**/a"], "segments"),
        (["tickets=read", "tickets=comment"], "named twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], because: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match=because):
        parse_access(texts)
