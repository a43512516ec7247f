"""Structured logs: one JSON object a line, with the object that it is about and never a key."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys

_FIELDS = ("object", "reason", "audit_index")
"""What `extra` may carry; nothing else of a record is written, so that nothing slips in."""
_CHATTY = ("kopf", "kopf.objects", "kopf._core", "kopf._cogs", "asyncio", "aiohttp")


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON; `extra={"object": …}` names what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, style: str) -> None:
    """Send logs to stderr as `json` or `text`; Kopf's are kept to warnings, since at DEBUG it logs bodies."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
