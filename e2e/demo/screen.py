"""The screen: headings, words, and commands that are shown as they run."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from e2e.installation import ROOT

COMMAND_SECONDS = 60.0


class StoryError(Exception):
    """The story did not go as told; the message has the command and what it said."""


class Screen:
    """What the reader sees. Commands run in the project's root, in the environment that is given here."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, emoji=False)
        self._environment: Mapping[str, str] = {}
        self._chapter = 0

    def speak_to(self, environment: Mapping[str, str]) -> None:
        """Run commands in this environment from now on."""
        self._environment = environment

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self._chapter += 1
        self._console.print()
        self._console.rule(f"[bold]{self._chapter}. {title}", align="left")

    def say(self, text: str) -> None:
        """Say a sentence to the reader."""
        self._console.print(text, style="italic", markup=False)

    def step(self, text: str) -> None:
        """Say what goes on behind the scene."""
        self._console.print(f"· {text}", style="dim", markup=False)

    def fail(self, text: str) -> None:
        """Say why the demo ends early."""
        self._console.print(f"\nThe demo failed. {text}", style="bold red", markup=False)

    def manifest(self, path: str) -> None:
        """Show a manifest of the documentation."""
        self._console.print(f"$ cat {path}", style="bold cyan", markup=False)
        text = (ROOT / path).read_text().rstrip()
        self._console.print(Syntax(text, "yaml", theme="ansi_light", background_color="default"))

    def table(self, table: Table) -> None:
        """Show a table."""
        self._console.print(table, soft_wrap=False)

    def run(self, command: str, *, refused: bool = False, shown: bool = True) -> str:
        """Run a shell command and show both it and what it says; returns what it says.

        Args:
            command: as a reader would type it.
            refused: it is meant to fail, and the story ends if it does not.
            shown: whether what it says is shown, too.

        Raises:
            StoryError: it ended otherwise than it is told to.
        """
        self._console.print(f"$ {command}", style="bold cyan", markup=False)
        try:
            done = subprocess.run(
                ["sh", "-c", command],
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
                env=dict(self._environment),
                timeout=COMMAND_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise StoryError(f"It took more than {COMMAND_SECONDS:.0f} s: {command}") from error
        said = (done.stdout + done.stderr).rstrip()
        if shown and said:
            self._console.print(said, markup=False, style="yellow" if refused else "")
        if (done.returncode != 0) != refused:
            ended = "succeeded, though it must be refused" if refused else f"ended with {done.returncode}"
            raise StoryError(f"This command {ended}: {command}\n{'' if shown else said}")
        return done.stdout
