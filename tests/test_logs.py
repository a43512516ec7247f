from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from pilot_identity import logs


@pytest.fixture
def _root() -> Iterator[None]:
    """The root logger, put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_root")
def test_a_line_is_one_json_object_that_names_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, logger, message and object; line breaks stay inside."""
    logs.configure("info", "json")
    logging.getLogger("pilot_identity.x").warning(
        "two\nlines %d", 1, extra={"object": "TaskGrant team-a/task-1"}
    )
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning",
        "logger": "pilot_identity.x",
        "message": "two\nlines 1",
        "object": "TaskGrant team-a/task-1",
    }


def test_an_exception_is_in_its_line() -> None:
    """With its trace."""
    try:
        raise ValueError("wrong")  # noqa: TRY301 - to have a trace
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    told = json.loads(logs.JsonFormatter().format(record))
    assert "ValueError: wrong" in told["exception"]
    assert "object" not in told


@pytest.mark.usefixtures("_root")
def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Level, logger and message."""
    logs.configure("info", "text")
    logging.getLogger("pilot_identity.x").info("told")
    logging.getLogger("pilot_identity.x").debug("not told")
    assert capsys.readouterr().err.rstrip().endswith("INFO    pilot_identity.x: told")


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize(
    "name", ["kopf.objects", "kopf._core.reactor", "kopf._cogs.clients", "aiohttp.client"]
)
def test_kopf_is_kept_to_warnings(name: str) -> None:
    """At DEBUG it logs whole bodies."""
    logs.configure("debug", "json")
    assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    assert logging.getLogger("pilot_identity").isEnabledFor(logging.DEBUG)
