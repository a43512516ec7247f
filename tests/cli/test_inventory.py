import json
import re

from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run


def test_ten_thousand_grants_come_in_pages(api: FakeApi, run: Run) -> None:
    """Of 500, so that no answer is larger than the API server likes; also when the listing grows too old."""
    for number in range(10_000):
        api.put("taskgrants", things.grant(f"task-{number:05}", uid=f"uid-{number}"))
    api.put("pilotidentities", things.pilot())
    api.gone = 1
    result = run("grants", "-A", "-o", "wide")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 10_001
    assert "tom@example.org" in lines[5000]
    limits = {limit for path, limit in api.asked("GET") if path.endswith("taskgrants")}
    assert limits == {"500"}


def test_the_json_has_identifiers_and_no_keys(api: FakeApi, run: Run) -> None:
    """What a security team's tools need of each, and the lists of who answers."""
    usage = {"lastUsed": things.at(minutes=-1), "requests": 7, "refused": 1}
    api.put("taskgrants", things.grant(status={"usage": usage}))
    api.put("pilotidentities", things.pilot())
    (item,) = json.loads(run("grants", "-o", "json").stdout)["items"]
    assert item["owners"] == ["tom@example.org", "bea@example.org"]
    assert item["access"] == ["tickets=read"]
    assert item["credential"]["serial"] == "a1b2c3"
    assert item["credential"]["tokens"][0]["jti"] == "0123456789abcdef.0"
    assert item["lastUse"] == things.at(minutes=-1)
    assert item["usage"] == {"requests": 7, "refused": 1, "activities": 0}


def test_without_a_right_to_pilots_the_owners_are_those_of_the_decision(api: FakeApi, run: Run) -> None:
    """The grant's own status says who owned the pilot when it was decided."""
    decision = {"allowed": True, "owners": ["una@example.org"]}
    api.put("taskgrants", things.grant(status={"decision": decision}))
    api.forbidden = "pilotidentities"
    assert "una@example.org" in run("grants").stdout


def test_what_ended_is_listed_while_a_copy_could_still_be_believed(api: FakeApi, run: Run) -> None:
    """Outstanding is what somebody may still accept; the rest is for --ended."""
    for name, minutes in (("believed", 3), ("over", -3)):
        closure = {"outcome": "Revoked", "residualUntil": things.at(minutes=minutes)}
        closure["withdrawnAt"] = things.at(minutes=-2)
        api.put("taskgrants", things.grant(name, "Revoked", uid=name, status={"closure": closure}))
    assert _names(run("grants", "-o", "json").stdout) == ["believed"]
    row = run("grants").stdout.splitlines()[1]
    assert re.search(r" 2m(\d+s)? ago ", row), "it ended before its time"
    assert _names(run("grants", "--ended", "-o", "json").stdout) == ["believed", "over"]
    assert run("grants", "over", "-o", "name").stdout == "taskgrant.pilotidentity.dev/over\n"


def test_filters(api: FakeApi, run: Run) -> None:
    """Each narrows; together they all hold."""
    api.put("pilotidentities", things.pilot())
    api.put("taskgrants", things.grant("one", uid="1"))
    other = {"pilot": "other", "requestedBy": "eve@example.org"}
    api.put("taskgrants", things.grant("two", "Pending", uid="2", spec=other, status={"stage": "live"}))
    for arguments, names in (
        (("--pilot", "triage"), ["one"]),
        (("--owner", "bea@example.org"), ["one"]),
        (("--requester", "eve@example.org"), ["two"]),
        (("--stage", "live"), ["two"]),
        (("--phase", "pending"), ["two"]),
        (("--phase", "pending", "--pilot", "triage"), []),
    ):
        assert _names(run("grants", *arguments, "-o", "json").stdout) == names, arguments


def test_names_cannot_draw_on_the_screen(api: FakeApi, run: Run) -> None:
    """User names come from whoever runs the identity provider."""
    api.put("taskgrants", things.grant(spec={"requestedBy": "eve\x1b[2J\nfake row"}))
    table = run("grants").stdout
    assert "\x1b" not in table
    assert len(table.splitlines()) == 2


def test_an_empty_namespace_says_so_beside_the_result(api: FakeApi, run: Run) -> None:
    """On stderr, so that a script sees nothing; and -A with a namespace is a contradiction."""
    del api
    result = run("grants", "--context", "team-b")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no grants in namespace team-b" in result.stderr
    assert run("grants", "-A", "-n", "team-a").exit_code == 2


def _names(text: str) -> list[str]:
    return [item["name"] for item in json.loads(text)["items"]]
