"""Where a witness keeps the newest head that it cosigned: a ConfigMap, or files on a volume of its own.

Both replace what they keep only if it is still what was read, so that two replicas cannot both go on from
one head; and both have it durable before they return.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, NotFound
from pilot_identity.core.witness.request import origin_hash
from pilot_identity.ports import Conflict, Cosigned, PortError, Unavailable

STATE_CONFIG_MAP = "witness-state"
MAX_NOTE_BYTES = 65_536


class LostStateError(PortError):
    """What the witness cosigned is gone, but its key is there; it must not begin anew under the same name."""


class ConfigMapState:
    """`ports.WitnessState` in one ConfigMap, a log for each key; its resourceVersion orders the replicas."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._path = paths.core(namespace, "configmaps", STATE_CONFIG_MAP)

    async def is_there(self) -> bool:
        """Whether it was ever begun."""
        try:
            await self._api.get(self._path)
        except NotFound:
            return False
        return True

    async def begin(self) -> None:
        """Make it, with nothing in it; one that is there is left as it is."""
        try:
            await self._api.create(paths.core(self._namespace, "configmaps"), self._body({}, ""))
        except Conflict:
            return

    async def read(self, origin: str) -> Cosigned:
        """Return what is kept of a log.

        Raises:
            LostStateError: the ConfigMap is gone.
        """
        data, version = await self._data()
        return Cosigned(data.get(origin_hash(origin), ""), version)

    async def replace(self, origin: str, before: Cosigned, note: str) -> None:
        """Keep `note`, if nothing was kept since `before` was read."""
        data, version = await self._data()
        if version != before.version:
            raise Conflict(f"{STATE_CONFIG_MAP} changed since it was read")
        body = self._body({**data, origin_hash(origin): note}, version)
        await self._api.replace(self._path, body)

    async def publish(self, vkey: str) -> None:
        """Put the witness's vkey beside what it keeps, where people find it."""
        data, version = await self._data()
        if data.get("vkey", "").strip() != vkey:
            await self._api.replace(self._path, self._body({**data, "vkey": f"{vkey}\n"}, version))

    async def _data(self) -> tuple[Mapping[str, str], str]:
        try:
            found: Mapping[str, Any] = await self._api.get(self._path)
        except NotFound:
            raise LostStateError(
                f"ConfigMap {STATE_CONFIG_MAP}, with the heads that were cosigned, is gone: restore it"
            ) from None
        return found.get("data") or {}, found["metadata"]["resourceVersion"]

    def _body(self, data: Mapping[str, str], version: str) -> Mapping[str, Any]:
        metadata = {"name": STATE_CONFIG_MAP, "namespace": self._namespace}
        if version:
            metadata["resourceVersion"] = version
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


class FileState:
    """`ports.WitnessState` in a directory, a file for each log; a lock orders the processes that share it."""

    def __init__(self, directory: Path) -> None:
        """Take a directory that is there.

        Raises:
            OSError: it is not there, or cannot be written.
        """
        self._directory = directory
        with self._locked():
            """That it can be locked is known at once, not when a log asks."""

    async def read(self, origin: str) -> Cosigned:
        """Return what is kept of a log."""
        note = await self._outside(self._read, origin)
        return Cosigned(note, note)

    async def replace(self, origin: str, before: Cosigned, note: str) -> None:
        """Keep `note`, if what is kept is still `before`."""
        await self._outside(self._replace, origin, before, note)

    async def _outside(self, work: Any, *arguments: Any) -> Any:
        """Do the file's work in a thread; what the disk refuses is no answer."""
        try:
            return await asyncio.to_thread(work, *arguments)
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the witness's state in {self._directory}: {error}") from error

    def _read(self, origin: str) -> str:
        try:
            with self._file(origin).open("rb") as file:
                return file.read(MAX_NOTE_BYTES).decode()
        except FileNotFoundError:
            return ""

    def _replace(self, origin: str, before: Cosigned, note: str) -> None:
        path = self._file(origin)
        part = path.with_suffix(".part")
        with self._locked():
            if self._read(origin) != before.version:
                raise Conflict(f"{path.name} changed since it was read")
            with part.open("wb") as file:
                file.write(note.encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._sync_directory()

    def _sync_directory(self) -> None:
        """Make the new name durable, too."""
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _file(self, origin: str) -> Path:
        return self._directory / f"{origin_hash(origin)}.checkpoint"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
