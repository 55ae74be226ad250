"""What hypothesis makes for the parsers: names, and the ways in which bytes get damaged."""

import string

from hypothesis import strategies as st

from pki.policy.selector import Selector
from pki.spiffe import SpiffeId, TrustDomain

_CHARACTERS = string.ascii_letters + string.digits + "._-"

trust_domains = st.text(
    string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=60
).map(TrustDomain)
segments = st.text(_CHARACTERS, min_size=1, max_size=30).filter(lambda s: s not in (".", ".."))
spiffe_ids = st.builds(
    lambda domain, path: SpiffeId(domain, "".join(f"/{segment}" for segment in path)),
    trust_domains,
    st.lists(segments, max_size=5),
)
#: What a JSON document may hold.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """``good`` with a few bytes changed, cut out or put in, or cut short."""
    places = st.integers(0, len(good) - 1)
    change = st.tuples(places, st.integers(0, 255)).map(
        lambda c: lambda b: b[: c[0]] + bytes((c[1],)) + b[c[0] + 1 :]
    )
    removal = st.tuples(places, st.integers(1, 8)).map(
        lambda c: lambda b: b[: c[0]] + b[c[0] + c[1] :]
    )
    insertion = st.tuples(places, st.binary(min_size=1, max_size=8)).map(
        lambda c: lambda b: b[: c[0]] + c[1] + b[c[0] :]
    )
    truncation = places.map(lambda place: lambda b: b[:place])
    edits = st.one_of(change, change, change, removal, insertion, truncation)

    def apply(chosen: list) -> bytes:  # type: ignore[type-arg]
        damaged = good
        for edit in chosen:
            damaged = edit(damaged)
        return damaged

    return st.lists(edits, min_size=1, max_size=3).map(apply)


users = st.text(string.ascii_letters + string.digits + "._-\\@%*/{}", min_size=1, max_size=20)
units = st.builds(
    "{}.{}".format,
    st.text(string.ascii_letters + string.digits + ":_.\\@-", min_size=1, max_size=20),
    st.sampled_from(["service", "scope", "socket", "timer", "slice"]),
)
labels = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
numbers = st.integers(0, 2**32 - 2).map(str)
#: Of every kind that there is.
selectors = st.one_of(
    st.builds(Selector, st.sampled_from(["unix:uid", "unix:gid"]), numbers),
    st.builds(Selector, st.just("unix:user"), users),
    st.builds(Selector, st.just("systemd:unit"), units),
    st.builds(Selector, st.just("token"), labels),
    st.builds(Selector, st.just("x509"), spiffe_ids.filter(lambda i: bool(i.path)).map(str)),
)
