from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.digested import Digested, digest_of

DIGESTS = st.integers(0, (1 << 128) - 1) | st.integers(0, 300)


@given(st.lists(DIGESTS, max_size=600))
def test_it_is_a_map_that_never_forgets(digests: list[int]) -> None:
    """As a dict is that keeps what came first, whatever the digests are, through every size of table."""
    made, model = Digested(), dict[int, int]()
    for index, digest in enumerate(digests):
        assert made.find(digest) == model.get(digest)
        made.add(digest, index)
        model.setdefault(digest, index)
    assert {digest: made.find(digest) for digest in model} == model
    assert (dict(made.items()), len(made)) == (model, len(model))
    assert made.newest(3) == sorted(model.items(), key=lambda item: -item[1])[:3]


def test_many_names_are_each_found_where_they_stand() -> None:
    """Through the largest tables, too."""
    made = Digested()
    for number in range(30_000):
        made.add(digest_of(f"name {number}"), number)
    assert all(made.find(digest_of(f"name {number}")) == number for number in range(30_000))
    assert made.find(digest_of("another")) is None
