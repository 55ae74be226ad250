"""What a log takes, and what it refuses with the rule that is broken."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.entry import EntryType, LogEntry, SignedEntry
from pki.ct.errors import NotAcceptedHere
from pki.errors import PkiError
from pki.spiffe import SpiffeId
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import certificates_pem
from tests.authorities import (
    HOUR,
    MESH,
    NOW,
    OTHER,
    forge,
    forge_issuing,
    key,
    mesh,
)
from tests.ctlogs import SUBMITTER, chain_of, der, precertificate
from twisted_mesh.ct.reader import LARGEST_ENTRY
from twisted_mesh.ctlog.admission import LARGEST_CERTIFICATE, MOST_CERTIFICATES, Admitted, admit
from twisted_mesh.ctlog.errors import ForeignSubmitter
from twisted_mesh.ctlog.roots import AcceptedRoots, RootFile
from twisted_mesh.ctlog.submitters import AcceptedCa, Submitters
from twisted_mesh.monitor.tile_scan import scan
from twisted_mesh.tls.self_signed import pin_of

OURS = mesh()
PRE = precertificate(OURS)


def taken(
    chain: Sequence[bytes],
    *,
    is_precertificate: bool = True,
    submitter: SpiffeId = SUBMITTER,
    now: datetime = NOW,
    roots: Sequence[x509.Certificate] = (OURS.root.certificate,),
) -> Admitted:
    return admit(
        chain,
        is_precertificate=is_precertificate,
        submitter=submitter,
        roots=roots,
        now=now,
    )


def test_a_precertificate_and_its_certificate_are_taken_with_the_root_or_without() -> None:
    without = taken(chain_of(OURS, PRE))
    whole = taken([*chain_of(OURS, PRE), der(OURS.root.certificate)])
    assert (without.digest, without.issuers) == (whole.digest, whole.issuers)
    assert without.signed.type is EntryType.PRECERT
    assert len(without.issuers) == 2
    cert = OURS.leaf()
    found = taken(chain_of(OURS, cert), is_precertificate=False)
    assert (found.signed.type, found.signed.body) == (EntryType.X509, der(cert))
    assert found.digest != without.digest


def changed(cert: x509.Certificate) -> bytes:
    data = bytearray(der(cert))
    data[-1] ^= 1
    return bytes(data)


def foreign() -> list[bytes]:
    other = mesh(OTHER)
    return chain_of(other, precertificate(other))


REFUSED: dict[str, tuple[Callable[[], list[bytes]], str]] = {
    "nothing": (list, "0 certificates"),
    "the leaf alone": (lambda: [der(PRE)], "1 certificates"),
    "too many": (lambda: [der(PRE)] * 9, "9 certificates"),
    "no certificate": (lambda: [b"\x30\x00", der(OURS.issuing.certificate)], "cannot be decoded"),
    "one that is too large": (
        lambda: [bytes(LARGEST_CERTIFICATE + 1), der(OURS.issuing.certificate)],
        "is the most",
    ),
    "something after it": (
        lambda: [der(PRE) + b"\0", der(OURS.issuing.certificate)],
        "cannot be decoded",
    ),
    "a bit of its signature flipped": (
        lambda: [changed(PRE), der(OURS.issuing.certificate)],
        "has not issued",
    ),
    "another CA above it": (
        lambda: [der(PRE), der(mesh(OTHER).issuing.certificate)],
        "below none of the roots",
    ),
    "another mesh's": (foreign, "not of the trust domain"),
    "the wrong order": (
        lambda: [der(OURS.issuing.certificate), der(PRE)],
        "no poison",
    ),
    "a certificate": (lambda: chain_of(OURS, OURS.leaf()), "submit it to add-chain"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    chain, why = REFUSED[what]
    with pytest.raises(NotAcceptedHere, match=why):
        taken(chain())


def test_whatever_it_takes_its_readers_can_read() -> None:
    """Else a thief could put 256 large entries before the one that no monitor is to see."""
    largest = LogEntry(
        0,
        SignedEntry(EntryType.PRECERT, bytes(LARGEST_CERTIFICATE), bytes(32)),
        0,
        bytes(LARGEST_CERTIFICATE),
        (bytes(32),) * MOST_CERTIFICATES,
    )
    assert len(largest.tile_leaf) <= LARGEST_ENTRY
    (found,) = scan(largest.tile_leaf, 0)
    assert found.leaf_hash == largest.leaf_hash


def test_a_precertificate_is_no_certificate() -> None:
    with pytest.raises(NotAcceptedHere, match="submit it to add-pre-chain"):
        taken(chain_of(OURS, PRE), is_precertificate=False)


def test_what_a_root_or_a_forged_ca_has_issued_is_refused() -> None:
    with pytest.raises(NotAcceptedHere, match="issued by a root itself"):
        taken([der(forge(OURS.root)), der(OURS.root.certificate)], is_precertificate=False)
    no_ca = forge(OURS.root, subject_key=key(51))
    below = forge_issuing(OURS.root, start=NOW - 3 * HOUR, end=NOW - HOUR)
    leaf = forge(below)
    with pytest.raises(NotAcceptedHere, match="is valid from"):
        taken([der(leaf), der(below.certificate)], is_precertificate=False)
    with pytest.raises(NotAcceptedHere):
        taken([der(leaf), der(no_ca)], is_precertificate=False)
    ca = forge_issuing(OURS.issuing, 52)
    with pytest.raises(NotAcceptedHere, match="is a CA"):
        taken(chain_of(OURS, ca.certificate), is_precertificate=False)


def test_another_trust_domains_name_is_refused_whoever_has_signed_it() -> None:
    with pytest.raises(NotAcceptedHere, match="not of the trust domain"):
        taken(chain_of(OURS, PRE), submitter=OTHER.member("mesh", "ca"))
    with pytest.raises(NotAcceptedHere, match="below none of the roots"):
        taken(chain_of(OURS, PRE), roots=[mesh(OTHER).root.certificate])


@pytest.mark.parametrize(("hours", "why"), [(-1, "compare the clocks"), (3, "was valid until")])
def test_a_leaf_of_another_time_is_refused(hours: int, why: str) -> None:
    with pytest.raises(NotAcceptedHere, match=why):
        taken(chain_of(OURS, PRE), now=NOW + timedelta(hours=hours))


@given(st.binary(max_size=300), st.integers(0, 700), st.integers(0, 255))
def test_whatever_is_submitted_only_a_refusal_comes_of_it(data: bytes, at: int, byte: int) -> None:
    spoiled = bytearray(der(PRE))
    spoiled[at % len(spoiled)] = byte
    for leaf in (data, bytes(spoiled)):
        for is_precertificate in (True, False):
            try:
                found = taken(
                    [leaf, der(OURS.issuing.certificate)], is_precertificate=is_precertificate
                )
            except NotAcceptedHere:
                continue
            assert leaf == der(PRE) and is_precertificate and found.pre_certificate == leaf


def test_submitters_are_their_keys(tmp_path: Path) -> None:
    pin, other = pin_of(key("a")), pin_of(key("b"))
    ours = AcceptedCa.parse(f"spiffe://mesh.local/mesh/ca={pin}")
    assert str(ours) == f"spiffe://mesh.local/mesh/ca={pin}"
    known = Submitters([ours], tmp_path / "pin")
    assert known.who(pin) == SUBMITTER and pin in known and other not in known
    for shown in (None, other):
        with pytest.raises(ForeignSubmitter, match="--accept-ca"):
            known.who(shown)
    assert known.problem is None


def test_a_ca_in_the_same_place_says_its_pin_in_a_file_which_may_change(tmp_path: Path) -> None:
    pin, other = pin_of(key("a")), pin_of(key("b"))
    file = tmp_path / "ct-submitter.pin"
    known = Submitters([AcceptedCa.parse("spiffe://mesh.local/mesh/ca")], file)
    assert pin not in known
    assert known.problem is not None and "--accept-ca" in known.problem.remedy
    file.write_text(f"{pin}\n")
    file.chmod(0o644)
    assert pin in known and known.problem is None
    file.unlink()
    file.write_text(f"{other} ")
    assert other in known and pin not in known
    file.write_text("nonsense")
    assert other not in known and known.problem is not None
    file.write_text(f"{pin}\n")
    file.chmod(0o666)
    file.touch()
    assert pin not in known


@pytest.mark.parametrize(
    "texts",
    [
        ["spiffe://a.example/mesh/ca", "spiffe://b.example/mesh/ca"],
        [f"spiffe://{name}.example/mesh/ca={SpkiHash(bytes(32))}" for name in "ab"],
    ],
)
def test_two_cas_are_told_apart(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="--accept-ca"):
        Submitters([AcceptedCa.parse(text) for text in texts], tmp_path / "pin")


def test_roots_are_read_again_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    old, new = OURS.root.certificate, mesh(OTHER).root.certificate
    (tmp_path / "root.crt").write_bytes(certificates_pem([old]))
    roots = AcceptedRoots([], tmp_path)
    assert roots.look() and roots.of(MESH) == (old,)
    assert not roots.look()
    (tmp_path / "root-2.crt").write_bytes(certificates_pem([new]))
    assert roots.look() and set(roots.all()) == {old, new}
    (tmp_path / "root.crt").write_text("nonsense")
    assert not roots.look() and set(roots.all()) == {old, new}
    assert roots.problem is not None
    (tmp_path / "root.crt").unlink()
    (tmp_path / "root-2.crt").rename(tmp_path / "root.crt")
    assert roots.look() and roots.all() == (new,) and roots.problem is None


def test_roots_of_one_trust_domain_are_for_its_ca_alone(tmp_path: Path) -> None:
    for trust_domain in (MESH, OTHER):
        file = tmp_path / f"{trust_domain}.pem"
        of = OURS if trust_domain == MESH else mesh(OTHER)
        file.write_bytes(certificates_pem([of.root.certificate]))
    files = [RootFile.parse(f"{name}={tmp_path}/{name}.pem") for name in (MESH, OTHER)]
    assert [str(file) for file in files] == [
        f"{name}={tmp_path}/{name}.pem" for name in (MESH, OTHER)
    ]
    roots = AcceptedRoots(files, tmp_path)
    roots.look()
    assert roots.of(OTHER) == (mesh(OTHER).root.certificate,)
    assert roots.of(MESH) == (OURS.root.certificate,)
    assert RootFile.parse("/a=b/c.pem") == RootFile(Path("/a=b/c.pem"))
