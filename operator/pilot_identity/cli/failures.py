"""What a verb can end with, and the exit codes that scripts may rely on.

CliError          exits with 1: what failed, and what to do
├── UsageError    exits with 2: the command itself is wrong; nothing was sent
├── LateError     exits with 3: it did not happen in the time given; it may still
├── AnswerError   the API server refused; `status` is HTTP's
└── SilenceError  the API server did not answer
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process ends with."""

    DONE = 0
    """It was done."""
    REFUSED = 1
    """It was refused, is not there, or could not be asked."""
    USAGE = 2
    """The command line is wrong; nothing was sent."""
    LATE = 3
    """It did not happen within `--timeout`; it may still."""
    PARTLY = 4
    """Nothing is wrong in what was read, but not all was: it is archived, a copy is old, something could not
    be listed or read; or a log has too little of some decision to make it again."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it (128 + SIGINT)."""


class CliError(Exception):
    """What failed in a sentence, and in `hint` what to do about it."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(CliError):
    """The command line asks for something that cannot be meant."""

    exit_code = ExitCode.USAGE


class LateError(CliError):
    """What was waited for did not happen in time."""

    exit_code = ExitCode.LATE


class AnswerError(CliError):
    """The API server said no; the message is its own."""

    def __init__(self, message: str, hint: str = "", *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


class SilenceError(CliError):
    """The API server gave no answer that could be read, in the time that a request may take."""
