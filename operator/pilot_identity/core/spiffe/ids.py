"""SPIFFE IDs as values: parsed once at the border, never again a `str` (SPIFFE-ID.md §2).

A SPIFFE ID is `spiffe://<trust domain>/<segments>`. The standard asks readers of URIs to fold the case of
scheme and host (§2.4) and producers to write them in lower case (§2.1). We read only what may be written:
two spellings of one identity are a way past any allow-list that compares text.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilot_identity.core.spiffe.clauses import Clause, SpiffeIdError, first_broken, names

MAX_ID_OCTETS = 2048
MAX_TRUST_DOMAIN_OCTETS = 255

_SCHEME = "spiffe://"
_UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_SEGMENT = _HOST | _UPPER


def _octets(text: str) -> int:
    # Lone surrogates reach us through JSON's \ud800; they must be counted, not crash the count.
    return len(text.encode("utf-8", "surrogatepass"))


LENGTH: Clause[str] = Clause(
    "SPIFFE-ID §2.3 id-length",
    f"SPIFFE ID must not be longer than {MAX_ID_OCTETS} bytes",
    lambda text: _octets(text) <= MAX_ID_OCTETS,
)

URI: tuple[Clause[str], ...] = (
    # Make sure the text is bounded before anything else looks at it (§2.3).
    LENGTH,
    # Make sure it is a spiffe URI (§2).
    Clause("SPIFFE-ID §2 scheme", "scheme must be 'spiffe'", lambda text: text.startswith(_SCHEME)),
    # Make sure that it is scheme, authority and path, and nothing after them (§2).
    Clause("SPIFFE-ID §2 query", "SPIFFE ID must not have a query", lambda text: "?" not in text),
    Clause("SPIFFE-ID §2 fragment", "SPIFFE ID must not have a fragment", lambda text: "#" not in text),
    # Make sure that "spiffe://td/" and "spiffe://td" are not two names of one thing (§2.2).
    Clause(
        "SPIFFE-ID §2.2 path-trailing-slash",
        "path must not have a trailing slash",
        lambda text: text == _SCHEME or not text.endswith("/"),
    ),
)

TRUST_DOMAIN: tuple[Clause[str], ...] = (
    # Make sure there is a trust domain (§2.1).
    Clause("SPIFFE-ID §2.1 trust-domain-empty", "trust domain must not be empty", lambda name: name != ""),
    # Make sure that no user hides in front of it and no port behind it (§2.1).
    Clause("SPIFFE-ID §2.1 userinfo", "trust domain must not have userinfo", lambda name: "@" not in name),
    Clause("SPIFFE-ID §2.1 port", "trust domain must not have a port", lambda name: ":" not in name),
    # Make sure that no byte of it is written as an escape (§2.1).
    Clause(
        "SPIFFE-ID §2.1 trust-domain-percent-encoding",
        "trust domain must not have percent-encoded characters",
        lambda name: "%" not in name,
    ),
    # Make sure that it is in lower case (§2.1).
    Clause(
        "SPIFFE-ID §2.1 trust-domain-lowercase",
        "trust domain must be lowercase",
        _UPPER.isdisjoint,
    ),
    # Make sure that it holds nothing but the letters of the alphabet it was given (§2.1).
    Clause(
        "SPIFFE-ID §2.1 trust-domain-characters",
        "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
        # Case has its own row above, and stops the reading there.
        _HOST.issuperset,
    ),
    # Make sure that it fits RFC 3986's host (§2.3).
    Clause(
        "SPIFFE-ID §2.3 trust-domain-length",
        f"trust domain must not be longer than {MAX_TRUST_DOMAIN_OCTETS} bytes",
        lambda name: _octets(name) <= MAX_TRUST_DOMAIN_OCTETS,
    ),
)

SEGMENT: tuple[Clause[str], ...] = (
    # Make sure that no segment is empty (§2.2).
    Clause("SPIFFE-ID §2.2 path-empty-segment", "path must not have empty segments", lambda text: text != ""),
    # Make sure that nothing can walk up the path (§2.2).
    Clause(
        "SPIFFE-ID §2.2 path-dot-segment",
        "path must not have dot segments",
        lambda text: text not in {".", ".."},
    ),
    # Make sure that no byte of it is written as an escape (§2.2).
    Clause(
        "SPIFFE-ID §2.2 path-percent-encoding",
        "path must not have percent-encoded characters",
        lambda text: "%" not in text,
    ),
    # Make sure that a segment holds nothing but letters, numbers and three marks (§2.2).
    Clause(
        "SPIFFE-ID §2.2 path-characters",
        "path segment characters are limited to letters, numbers, dots, dashes, and underscores",
        _SEGMENT.issuperset,
    ),
)

CLAUSES = names(URI, TRUST_DOMAIN, SEGMENT)


def _require(table: tuple[Clause[str], ...], text: str) -> None:
    violation = first_broken(table, text)
    if violation is not None:
        raise SpiffeIdError(violation)


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of a root of trust (§2.1). Raises `SpiffeIdError`.

    >>> TrustDomain.parse("sandbox.example.org").id("ns", "web").uri
    'spiffe://sandbox.example.org/ns/web'
    """

    name: str

    def __post_init__(self) -> None:
        _require(TRUST_DOMAIN, self.name)

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Read a trust domain's name, without scheme or path."""
        return cls(text)

    def id(self, *segments: str) -> SpiffeId:
        """The SPIFFE ID at these path segments; none of them names the trust domain itself."""
        return SpiffeId(self, segments)

    @property
    def uri(self) -> str:
        """The trust domain's own SPIFFE ID, the one a signing certificate carries."""
        return _SCHEME + self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID (§2); `parse` and `uri` are inverses. Raises `SpiffeIdError`.

    >>> SpiffeId.parse("spiffe://prod.example.org/ns/web").segments
    ('ns', 'web')
    >>> SpiffeId.parse("spiffe://prod.example.org/ns/../web")
    Traceback (most recent call last):
        ...
    pilot_identity.core.spiffe.clauses.SpiffeIdError: path must not have dot segments
    """

    trust_domain: TrustDomain
    segments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for segment in self.segments:
            _require(SEGMENT, segment)
        _require((LENGTH,), self.uri)

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read a SPIFFE ID; the error's message is the first rule that it breaks."""
        _require(URI, text)
        authority, slash, path = text.removeprefix(_SCHEME).partition("/")
        return cls(TrustDomain(authority), tuple(path.split("/")) if slash else ())

    @property
    def path(self) -> str:
        """The path with its leading slash, or nothing for a trust domain's own ID."""
        return "".join(f"/{segment}" for segment in self.segments)

    @property
    def uri(self) -> str:
        """The one spelling of this identity."""
        return self.trust_domain.uri + self.path

    def __str__(self) -> str:
        return self.uri


def pilot_id(trust_domain: TrustDomain, namespace: str, pilot: str) -> SpiffeId:
    """Who a pilot is: `/ns/<namespace>/pilot/<pilot>`."""
    return trust_domain.id("ns", namespace, "pilot", pilot)


def task_id(trust_domain: TrustDomain, namespace: str, pilot: str, grant: str) -> SpiffeId:
    """What a pilot is doing: `/ns/<namespace>/pilot/<pilot>/task/<grant>`."""
    return trust_domain.id("ns", namespace, "pilot", pilot, "task", grant)
