from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.spiffe.clauses import SpiffeIdError
from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain, pilot_id, task_id

HOST = string.ascii_lowercase + string.digits + ".-_"
trust_domains = st.text(HOST, min_size=1, max_size=255).map(TrustDomain.parse)
segments = st.text(HOST + string.ascii_uppercase, min_size=1, max_size=63).filter(
    lambda it: it not in {".", ".."}
)
spiffe_ids = st.builds(SpiffeId, trust_domains, st.lists(segments, max_size=8).map(tuple))


@given(spiffe_ids)
def test_parse_undoes_format(identity: SpiffeId) -> None:
    """What is written is read back as the same value."""
    assert SpiffeId.parse(identity.uri) == identity
    assert str(identity) == identity.uri == f"spiffe://{identity.trust_domain}{identity.path}"


@given(st.text() | st.text(HOST + "/:@%?#A", max_size=40).map("spiffe://".__add__))
def test_format_undoes_parse(text: str) -> None:
    """What is read is written back as it was, for an identity has one spelling."""
    try:
        identity = SpiffeId.parse(text)
    except SpiffeIdError:
        return
    assert identity.uri == text


def test_segments_cannot_smuggle_a_separator() -> None:
    """A namespace or name is one segment, whatever it holds."""
    with pytest.raises(SpiffeIdError, match="path segment characters are limited"):
        pilot_id(TrustDomain.parse("sandbox"), "web/pilot/other", "translator")


def test_our_layout() -> None:
    """A task's identity lies below its pilot's."""
    trust_domain = TrustDomain.parse("sandbox.example.org")
    pilot = pilot_id(trust_domain, "web", "translator")
    task = task_id(trust_domain, "web", "translator", "t-1")
    assert pilot.uri == "spiffe://sandbox.example.org/ns/web/pilot/translator"
    assert task.uri == f"{pilot.uri}/task/t-1"


def test_the_longest_kubernetes_names_fit() -> None:
    """No name that the API server lets through makes an identity too long."""
    task = task_id(TrustDomain.parse("a" * 255), "n" * 63, "p" * 253, "g" * 253)
    assert SpiffeId.parse(task.uri) == task


def test_lone_surrogates_are_refused() -> None:
    """JSON can hold text that UTF-8 cannot; it breaks a rule and not the parser."""
    with pytest.raises(SpiffeIdError, match="path segment characters"):
        SpiffeId.parse("spiffe://sandbox/\ud800")
