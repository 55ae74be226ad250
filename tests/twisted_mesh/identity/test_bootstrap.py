"""How the options lead to a CA, and what is demanded of whoever answers there."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from pki.errors import Malformed, PkiError
from pki.policy.join_token import BadToken, JoinToken
from pki.spiffe import TrustDomain
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.x509svid import Purpose, certificates_pem
from tests.authorities import HOUR, MESH, OTHER, Mesh, key, mesh
from twisted_mesh.identity.bootstrap import (
    ca_client,
    ca_security,
    join_token,
)
from twisted_mesh.identity.ca_place import CaPlace
from twisted_mesh.identity.exported import exported
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import StateError
from twisted_mesh.state.generation import publish

ROOT = certificates_pem([mesh().root.certificate])


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "root.crt").write_bytes(ROOT)
    return str(tmp_path / "root.crt")


def test_without_options_it_is_the_socket_in_the_state_directory() -> None:
    client = ca_client(MemoryReactorClock(), None, None, Path("/state"), MESH)
    assert str(client.address) == "unix:/state/ca/ca.sock"
    assert client.security is None


def test_a_ca_at_https_is_believed_by_the_root_that_is_named(root: str) -> None:
    client = ca_client(MemoryReactorClock(), "https://ca:1", root, Path("/x"), MESH, timeout=3)
    assert client.security is not None
    assert client.timeout == 3


@pytest.mark.parametrize("written", [str, lambda found: str(found).removeprefix("sha256:").upper()])
def test_or_by_the_fingerprint_of_its_root(written: Callable[[Fingerprint], str]) -> None:
    found = Fingerprint.of(mesh().root.certificate)
    options = {"ca_fingerprint": written(found)}
    client = ca_client(MemoryReactorClock(), "https://ca:1", None, Path("/x"), MESH, **options)
    assert client.security is not None
    assert client.security.judge.pin == RootPin(found, MESH)
    assert client.security.judge.trust.bundles.all_roots == []


FINGERPRINT = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("url", "file", "fingerprint", "words"),
    [
        ("https://ca", "root.crt", FINGERPRINT, "say the same thing: give one of them"),
        ("https://ca", None, "sha256:ab", "is no SHA-256 fingerprint"),
        ("https://ca", None, None, "mesh-ctl token create .* openssl x509 -noout -fingerprint"),
        ("unix:/x", None, FINGERPRINT, "--ca-fingerprint is for a CA at https://, not at unix:/x"),
        ("http://localhost:1", None, FINGERPRINT, "--ca-fingerprint is for a CA at https://"),
        (None, None, FINGERPRINT, "--ca-fingerprint is for a CA at https://"),
    ],
)
def test_a_fingerprint_that_leads_nowhere_is_told_so(
    url: str | None, file: str | None, fingerprint: str | None, words: str
) -> None:
    with pytest.raises(Malformed, match=words):
        ca_client(MemoryReactorClock(), url, file, Path("/x"), MESH, ca_fingerprint=fingerprint)


# Join tokens.

TOKEN = JoinToken.generate()


def test_a_token_comes_as_it_is_or_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert join_token(None, None) is None
    assert join_token(TOKEN.text, None) == TOKEN
    for end in ("", "\n", "\r\n"):
        file.write_text(TOKEN.text + end, newline="")
        assert join_token(None, str(file)) == TOKEN
        assert join_token(None, "-", BytesIO(file.read_bytes())) == TOKEN


@pytest.mark.parametrize(
    "text",
    ["", TOKEN.text[:-1], f"{TOKEN.text}\n{TOKEN.text}", f" {TOKEN.text}", "\xff", "x" * 5000],
    ids=["empty", "cut", "twice", "spaced", "foreign", "long"],
)
def test_what_is_no_token_is_refused_and_not_repeated(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text, encoding="latin-1")
    for given in ((text, None), (None, str(tmp_path / "token"))):
        with pytest.raises(BadToken, match="no whole join token") as refused:
            join_token(*given)
        assert "x" * 10 not in str(refused.value)
        assert TOKEN.text[:20] not in str(refused.value)


T = TOKEN.text
LACKS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "there is nothing"),
    "blanks": (b" \n\n", "there is nothing"),
    "an empty first line": (f"\n{T}\n".encode(), "the first line is empty"),
    "half of it": (T[:22].encode(), r"22 of 44 characters are there"),
    "one too few": (f"{T[:-1]}\n".encode(), "43 of 44 characters are there"),
    "two": (f"{T}{T}".encode(), "88 characters long and a token has 44"),
    "two lines": (f"{T}\n{T}\n".encode(), "there are 2 lines"),
    "mistyped": (f"{T[:-1]}{'a' if T[-1] != 'a' else 'b'}".encode(), "not all of them are right"),
    "capitals": (T.upper().encode(), "have become capitals"),
    "without its head": (T[4:].encode(), "does not begin with mj1_: there is none"),
    "in quotation marks": (f'"{T}"'.encode(), "does not begin with mj1_: it begins elsewhere"),
    "broken by a blank": (f"{T[:20]} {T[20:-1]}".encode(), "there are blanks in it"),
    "its id": (TOKEN.id.encode(), "the id of a token, which anybody may see"),
    "UTF-16": (T.encode("utf-16"), "in UTF-16, as PowerShell"),
    "UTF-16 without a mark": (T.encode("utf-16-le"), "in UTF-16"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_a_token_file_says_how_much_of_it_is_there(lack: str, tmp_path: Path) -> None:
    data, words = LACKS[lack]
    (tmp_path / "token").write_bytes(data)
    with pytest.raises(BadToken, match=words) as refused:
        join_token(None, str(tmp_path / "token"))
    said = str(refused.value)
    assert said.startswith(f"--join-token-file {tmp_path}/token: this is no whole join token (")
    assert not any(T[at : at + 6] in said for at in range(4, len(T) - 5))


@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b" \t\n\n"])
def test_what_an_editor_adds_to_a_token_is_passed_over(
    head: bytes, tail: bytes, tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(head + T.encode() + tail)
    assert join_token(None, str(tmp_path / "token")) == TOKEN


def test_a_token_comes_from_one_place(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="--join-token and --join-token-file say the same thing"):
        join_token(TOKEN.text, str(tmp_path))
    with pytest.raises(StateError, match="--join-token-file /gone cannot be read"):
        join_token(None, "/gone")
    with pytest.raises(StateError, match="--join-token-file - cannot be read"):
        join_token(None, "-")


@pytest.mark.parametrize(
    ("url", "file", "kind", "words"),
    [
        ("unix:/x", "root.crt", Malformed, "--ca-file is for a CA at https://, not at unix:/x"),
        (None, "root.crt", Malformed, "--ca-file is for a CA at https://"),
        ("nonsense", None, Malformed, "no CA address"),
        ("https://ca", "/gone", StateError, "--ca-file /gone cannot be read"),
        ("https://ca", "setup.cfg", Malformed, "no certificates in PEM"),
    ],
)
def test_options_that_lead_nowhere_are_told_so(
    url: str | None, file: str | None, kind: type[PkiError], words: str
) -> None:
    if file and not file.startswith("/"):
        file = str(Path(__file__).parents[3] / file)
    with pytest.raises(kind, match=words):
        ca_client(MemoryReactorClock(), url, file, Path("/state"), MESH)


def test_only_the_ca_itself_may_answer_as_the_ca() -> None:
    ours = mesh(now=wall_clock())
    security = ca_security(MemoryReactorClock(), ours.bundle)

    def answers(ca: Mesh, *path: str) -> list[str]:
        leaf = ca.leaf(MESH.member(*path), wall_clock(), HOUR, key(9))
        verdict = security.judge.verdict((leaf, *ca.issuing.intermediates), Purpose.SERVER)
        return [problem.code for problem in verdict.problems]

    assert answers(ours, "mesh", "ca") == []
    assert answers(ours, "service", "ca") == ["not-authorized"]
    assert "unknown-authority" in answers(mesh(OTHER, now=wall_clock()), "mesh", "ca")


# An administrator's identity, as mesh-client --export writes it.


@pytest.fixture
def me(tmp_path: Path) -> Path:
    chain = certificates_pem((mesh().leaf(), *mesh().issuing.intermediates))
    files = {"svid.pem": (chain, 0o644), "svid_key.pem": (key(9).to_pem(), 0o600)}
    publish(tmp_path / "me", {**files, "svid_bundle.pem": (ROOT, 0o644)})
    return tmp_path / "me"


def asks_as(
    me: Path, ca_url: str | None, ca_file: str | None = None, ca_fingerprint: str | None = None
) -> CaPlace:
    elsewhere = TrustDomain("elsewhere.example")
    return CaPlace.of_administrator(
        ca_url,
        ca_file,
        Path("/state"),
        elsewhere,
        ca_fingerprint=ca_fingerprint,
        svid=me,
    )


def test_an_exported_identity_says_whose_root_to_believe_and_who_we_are(me: Path) -> None:
    place = asks_as(me, "https://ca")
    assert place.roots is not None
    assert place.roots.trust_domain == MESH
    assert place.shown is not None
    assert place.origin == f"--svid {me}"


def test_another_root_may_be_named(me: Path, root: str) -> None:
    assert asks_as(me, "https://ca", root).roots is not None
    with pytest.raises(StateError, match="--ca-file /gone"):
        asks_as(me, "https://ca", "/gone")


def test_or_another_fingerprint(me: Path) -> None:
    place = asks_as(me, "https://ca", None, FINGERPRINT)
    assert place.pin == RootPin(Fingerprint.parse(FINGERPRINT), MESH)
    assert place.roots is None
    with pytest.raises(Malformed, match="give one of them"):
        asks_as(me, "https://ca", "/gone", FINGERPRINT)


@pytest.mark.parametrize("ca_url", [None, "unix:/ca.sock", "http://localhost:1"])
def test_an_identity_is_for_https(ca_url: str | None, me: Path) -> None:
    with pytest.raises(Malformed, match="--svid is for a CA at https://"):
        asks_as(me, ca_url)


def test_files_beside_each_other_will_do_without_links(me: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("svid.pem", "svid_key.pem", "svid_bundle.pem"):
        (copied / name).write_bytes((me / name).read_bytes())
    svid, bundle = exported(copied)
    assert svid.spiffe_id.name == "backend"
    assert bundle == copied / "svid_bundle.pem"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("svid.pem", b"", "me/svid.pem holds no certificates"),
        ("svid.pem", key().to_pem(), "me/svid.pem holds no certificates but a private key"),
        ("svid.pem", ROOT, "me/svid.pem: .*names no SPIFFE ID with a path"),
        ("svid_key.pem", b"", "me/svid_key.pem: this is no private key in PEM"),
        pytest.param(
            "svid_key.pem",
            key().to_pem()[:90],
            "me/svid_key.pem: .*PRIVATE KEY has no end",
            id="cut",
        ),
        ("svid_key.pem", key().to_pem(b"x"), "me/svid_key.pem: .*encrypted.* openssl pkey"),
        ("svid_key.pem", key(8).to_pem(), "svid_key.pem do not belong together: .*another key"),
    ],
)
def test_files_that_do_not_fit_are_named(name: str, content: bytes, words: str, me: Path) -> None:
    (me / name).write_bytes(content)
    with pytest.raises(Malformed, match=words):
        exported(me)


def test_a_key_says_for_whom_it_was_made_where_that_can_be_known(me: Path) -> None:
    other = mesh().leaf(MESH.member("service", "other"), leaf_key=key(8))
    (me / "svid_key.pem").write_bytes(key(8).to_pem())
    (me / "old.crt").write_bytes(certificates_pem([other]))
    with pytest.raises(
        Malformed, match=r"the key was made for spiffe://.*/service/other \(.*/me/old.crt\)"
    ):
        exported(me)


def test_an_identity_is_a_directory(me: Path) -> None:
    with pytest.raises(StateError, match=r"svid.pem is a file: name the directory"):
        exported(me / "svid.pem")


@pytest.mark.parametrize("content", [b"", key().to_pem(), certificates_pem([mesh().leaf()])])
def test_a_bundle_that_is_damaged_is_told_of_the_identity(content: bytes, me: Path) -> None:
    (me / "svid_bundle.pem").write_bytes(content)
    with pytest.raises(PkiError, match=r"^--svid .*/svid_bundle.pem"):
        asks_as(me, "https://ca")
