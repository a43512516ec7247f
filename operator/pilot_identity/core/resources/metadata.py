"""What every object of the API has: its metadata, and keys that name objects."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import NamedTuple

import msgspec

GROUP = "pilotidentity.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/withdraw"
"""Holds a deleted object until what was issued for it is withdrawn and recorded."""


class Key(NamedTuple):
    """Names one object of one kind in the cluster; `namespace` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As in logs and messages: `TaskGrant team-a/triage-42`."""
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read a key as `__str__` writes it; the kind is believed as it stands.

        >>> Key.parse("TaskGrant team-a/triage-42"), Key.parse("StagePolicy pilot").namespace
        (Key(kind='TaskGrant', namespace='team-a', name='triage-42'), '')
        """
        kind, _, where = text.partition(" ")
        namespace, _, name = where.rpartition("/")
        return cls(kind, namespace, name)


class View(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of every typed view: frozen, camelCase outside, unknown fields dropped.

    `gc=False` is safe because views form trees (nothing in them refers back), and it keeps ten thousand
    objects out of the cyclic garbage collector's rounds.
    """


@lru_cache(maxsize=4096)
def once(text: str) -> str:
    """Of equal texts the one that came first."""
    return text


class Repeated(View, frozen=True):
    """A view whose texts thousands of objects say alike: each text is in memory once.

    A grant that ten rules allowed says so in some twenty sentences, the same as its neighbours.
    """

    def __post_init__(self) -> None:
        """Replace each text by the one that is there already; an equal one, so that nothing changes."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is str:
                msgspec.structs.force_setattr(self, name, once(value))
            elif type(value) is tuple and value and type(value[0]) is str:
                msgspec.structs.force_setattr(self, name, tuple(map(once, value)))


class OwnerReference(View, frozen=True):
    """Ties an object's life to its owner's."""

    uid: str
    kind: str = ""
    name: str = ""
    controller: bool = False


class Annotations(View, frozen=True):
    """The annotations that the operator reads; all others are dropped."""

    changed_by: str = msgspec.field(name="pilotidentity.dev/changed-by", default="")


class Metadata(View, frozen=True):
    """The part of `metadata` that the operator reads."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = "0"
    generation: int = 0
    creation_timestamp: dt.datetime | None = None
    deletion_timestamp: dt.datetime | None = None
    finalizers: tuple[str, ...] = ()
    annotations: Annotations = Annotations()
    unreadable: str = ""
    """Why the spec could not be read, set by `parsing.read_as` alone: the API server drops such a field."""

    @property
    def changed_by(self) -> str:
        """Who last changed the spec, as the API server stamped it; empty where it cannot stamp."""
        return self.annotations.changed_by

    @property
    def is_deleting(self) -> bool:
        """Whether someone asked for this object to be deleted."""
        return self.deletion_timestamp is not None

    @property
    def is_held(self) -> bool:
        """Whether our finalizer holds the object until its credentials are withdrawn."""
        return FINALIZER in self.finalizers

    @property
    def version(self) -> int:
        """The resource version as an order: of two versions of one object the larger is the newer.

        Comparable by contract since Kubernetes 1.35 (KEP-5504); before that it was so in practice.
        """
        return int(self.resource_version)
