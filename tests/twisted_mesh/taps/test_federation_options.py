"""``--federation`` and its profile: what is meant, or one sentence why it cannot be."""

from pathlib import Path

import pytest

from pki.errors import Malformed
from pki.svid.federation import Profile
from twisted_mesh.taps.federation_options import FederationOptions, refresh_hint

WEB, SPIFFE = Profile.HTTPS_WEB, Profile.HTTPS_SPIFFE


def test_what_is_served_and_how_it_proves_itself() -> None:
    parse = FederationOptions.parse
    assert parse(None, None, None, None) is None
    assert parse(":8445", None, None, None) == FederationOptions(":8445", SPIFFE)
    assert parse(":8445", "https_spiffe", None, None) == FederationOptions(":8445", SPIFFE)
    pair = Path("c"), Path("k")
    assert parse(":443", "https_web", "c", "k") == FederationOptions(":443", WEB, *pair)
    assert parse("unix:/run/x", "https_web", None, None) == FederationOptions("unix:/run/x", WEB)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((None, "https_web", None, None), "are for --federation"),
        ((None, None, "c", "k"), "are for --federation"),
        ((":1", "https", None, None), "is no profile"),
        ((":1", None, "c", "k"), "shows its own SVID"),
        ((":1", "https_web", None, None), "give --federation-cert and"),
        ((":1", "https_web", "c", None), "give --federation-cert and"),
        (("unix:/x", None, None, None), "has no SVID of ours"),
        (("unix:/x", "https_web", "c", "k"), "leave --federation-cert"),
    ],
)
def test_what_does_not_fit_is_refused(given: tuple[str | None, ...], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        FederationOptions.parse(*given)


def test_the_hint_is_one_that_followers_keep_to() -> None:
    assert [refresh_hint(text) for text in ("5s", "5m", "1h")] == [5, 300, 3600]
    for text in ("4s", "61m"):
        with pytest.raises(Malformed, match="at least 5s and at most 1h"):
            refresh_hint(text)
