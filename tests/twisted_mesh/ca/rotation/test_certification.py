"""An issuing CA that a root elsewhere certifies: with files in between, refused whole, whatever is cut short."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.errors import Refused
from pki.issuing.authority import Authority
from pki.issuing.ca_request import CaRequest
from pki.issuing.profile import ISSUING
from pki.issuing.root_line import Phase, fingerprint_of
from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import judge
from pki.svid.revocation_set import Reason, RevocationSet
from pki.svid.x509svid import Purpose, certificates_pem
from tests.authorities import (
    DAY,
    HOUR,
    MESH,
    OTHER,
    forge,
    forge_issuing,
    forge_root,
    key,
    sign_crl,
)
from tests.twisted_mesh.ca.lives import YEAR, Life
from tests.twisted_mesh.ca.rigs import result_of
from tests.twisted_mesh.ca.writes import Killed, kill_before_write
from twisted_mesh.ca.authority_files import load_or_create
from twisted_mesh.ca.first_installation import FirstInstallation
from twisted_mesh.ca.issuing_files import WrongState
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers
from twisted_mesh.ca.revocation.root_crl import RootCrl
from twisted_mesh.ca.revoked_authorities import RevokedAuthority
from twisted_mesh.ca.rotation.certification import Certification, Installed
from twisted_mesh.ca.rotation.steps import RootKeyAway
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.offline.root import OfflineRoot
from twisted_mesh.offline.signing import Signed, Wishes, carry_out, plan
from twisted_mesh.state.key_files import KeyFiles

BY = "unix:uid:0"
_DER = serialization.Encoding.DER
P256 = KeyAlgorithm.EC_P256


class Log:
    """The audit log of the CA, as far as a CRL needs one."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def record(self, act: object, object: str, facts: Any) -> None:
        self.steps.append(facts["step"])


@define(eq=False)
class Crls:
    """Stands for who publishes: a CRL of each root, in memory."""

    now: Any
    log: Log = field(factory=Log)
    _roots: dict[bytes, RootCrl] = field(factory=dict)

    def of_root(self, root: x509.Certificate) -> RootCrl:
        made = RootCrl(root, CrlNumbers(None, self.now), self.log, self.now)  # type: ignore[arg-type]
        return self._roots.setdefault(root.fingerprint(root.signature_hash_algorithm), made)  # type: ignore[arg-type]


@define(eq=False)
class Apart:
    """A CA and its root, on two machines."""

    life: Life
    place: Path

    def root(self) -> OfflineRoot:
        return OfflineRoot.open(self.place, None, lambda: self.life.time)

    def sign(self, csr: bytes | None, **wishes: Any) -> Signed:
        with closing(self.root()) as root:
            return asyncio.run(carry_out(root, plan(root, Wishes(csr, **wishes))))

    def start(self) -> None:
        self.life.start()
        self.crls = Crls(lambda: self.life.time)
        self.certification = Certification(self.life.rotator.rotation_steps, self.crls)  # type: ignore[arg-type]
        self.life.rotator.certification = self.certification
        self.life.run()

    crls: Crls = field(init=False)
    certification: Certification = field(init=False)

    def csr(self, **options: Any) -> bytes:
        made: bytes = result_of(self.certification.request(BY, **options)).pem
        return made

    def install(self, *things: x509.Certificate | bytes, dry_run: bool = False) -> Installed:
        certificates = [thing for thing in things if isinstance(thing, x509.Certificate)]
        crls = [thing for thing in things if isinstance(thing, bytes)]
        pem = certificates_pem(certificates) if certificates else b""
        done: Installed = result_of(self.certification.install(pem, crls, BY, dry_run=dry_run))
        return done

    def refusals(self, *things: x509.Certificate | bytes) -> list[str]:
        before = self.life.generations, sorted(self.life.state.ca.rglob("*.crt"))
        with pytest.raises(Refused) as refusal:
            self.install(*things)
        assert (self.life.generations, sorted(self.life.state.ca.rglob("*.crt"))) == before
        return [problem.code for problem in refusal.value.problems]


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    """A CA whose root has gone to another machine."""
    life = Life(tmp_path)
    life.run()
    place = tmp_path / "offline"
    brought = OfflineRoot.adopt(
        place,
        life.root_key,
        life.state.root_certificate,
        crl_file=None,
        passphrase=None,
        now=lambda: life.time,
    )
    asyncio.run(brought).close()
    life.root_key.unlink()
    made = Apart(life, place)
    made.start()
    life.pass_time(HOUR)
    yield made


def certified(signed: Signed) -> x509.Certificate:
    assert signed.certificate is not None
    return signed.certificate


def believed(life: Life, *roots: x509.Certificate) -> bool:
    """Whether what issues now is believed by a peer with these roots."""
    issuing = life.authorities.issuing
    draft = issuing.draft(key("x").public_key, MESH.member("service", "x"), life.time, HOUR)
    chain = (asyncio.run(issuing.sign(draft)), *issuing.intermediates)
    bundles = BundleSet.of(TrustBundle(MESH, roots))
    return judge(chain, bundles, RevocationSet(), now=life.time, purpose=Purpose.ANY).ok


def test_a_successor_is_certified_elsewhere_and_takes_over_when_its_time_comes(
    apart: Apart,
) -> None:
    life = apart.life
    life.pass_time(YEAR / 2 + DAY)
    waits = life.rotator.waiting()
    assert waits is not None
    assert waits.code == "succession-waits"
    assert "mesh-ctl ca root csr, then sign" in waits.remedy
    assert "bring the key back" in waits.remedy
    csr = apart.csr()
    waits = life.rotator.waiting()
    assert waits is not None
    assert waits.remedy.startswith("its CSR waits for a certificate: mesh-ctl ca root csr")
    signed = apart.sign(csr)
    installed = apart.install(certified(signed), signed.crl)
    assert installed.is_prepared
    assert life.generations == (1, 2, ())
    assert life.rotator.waiting() is None
    assert apart.crls.of_root(life.authorities.root).current.number == signed.number  # type: ignore[union-attr]
    life.go_to(life.authorities.issuing.validity.not_after - DAY)
    assert life.generations == (2, None, (1,))
    assert believed(life, life.authorities.root)
    steps = [act.step for act in life.acts]
    assert steps[-5:] == ["requested 2", "installed 2", "prepared 2", "activated 2", "retired 1"]
    assert apart.crls.log.steps == ["root-crl-installed"]


def test_the_csr_is_the_same_until_it_is_answered(apart: Apart) -> None:
    first = apart.csr()
    assert apart.csr() == first
    apart.start()
    assert apart.csr() == first
    other = apart.csr(anew=True)
    assert CaRequest.parse(other, MESH).key_id != CaRequest.parse(first, MESH).key_id
    assert apart.refusals(certified(apart.sign(first))) == ["credentials-do-not-fit"]
    apart.install(certified(apart.sign(other)))
    assert not list(apart.life.state.ca.glob("*.csr"))
    third = CaRequest.parse(apart.csr(), MESH)
    assert third.generation == 3, "the one after the prepared one"


def test_nothing_is_done_in_a_dry_run(apart: Apart) -> None:
    signed = apart.sign(apart.csr())
    acts = len(apart.life.acts)
    assert apart.install(certified(signed), signed.crl, dry_run=True).is_prepared
    assert apart.life.generations == (1, None, ())
    assert (len(apart.life.acts), apart.crls.log.steps) == (acts, [])


def test_the_same_files_again_are_refused_as_installed(apart: Apart) -> None:
    signed = apart.sign(apart.csr())
    apart.install(certified(signed), signed.crl)
    assert apart.refusals(certified(signed)) == ["conflict"]
    apart.install(signed.crl)  # the same CRL again does no harm


def test_a_certificate_of_another_root_is_refused(apart: Apart, tmp_path: Path) -> None:
    csr = apart.csr()
    making = OfflineRoot.create(
        tmp_path / "x", MESH, KeySpec(P256), passphrase=None, now=lambda: apart.life.time
    )
    with closing(asyncio.run(making)) as other:
        signed = asyncio.run(carry_out(other, plan(other, Wishes(csr))))
    codes = apart.refusals(certified(signed), signed.crl)
    assert codes == ["crl-bad-signature", "unknown-authority"], "every reason at once"


def test_one_that_would_never_take_over_is_refused(apart: Apart) -> None:
    signed = apart.sign(apart.csr(), life=YEAR - DAY)
    assert apart.refusals(certified(signed)) == ["ttl-out-of-range"]


def test_what_has_ended_or_ends_soon_is_refused(apart: Apart) -> None:
    signed = apart.sign(apart.csr(), life=timedelta(days=30))
    apart.life.pass_time(27 * DAY)
    assert apart.refusals(certified(signed)) == ["ttl-out-of-range"]
    apart.life.pass_time(10 * DAY)
    assert apart.refusals(certified(signed), signed.crl) == ["crl-stale", "expired"]


def test_an_older_crl_is_refused_and_one_that_takes_something_back(apart: Apart) -> None:
    older = apart.sign(None)
    apart.life.pass_time(HOUR)
    first = certified(apart.sign(apart.csr()))
    newer = apart.sign(None, revoke=(f"{first.serial_number:x}",))
    apart.install(newer.crl)
    assert apart.refusals(older.crl) == ["crl-rolled-back"]
    root_key = MemoryKey.from_pem((apart.place / "ca" / "private" / "root.key").read_bytes())
    root = Authority(apart.life.authorities.root, root_key)
    times = {"this_update": apart.life.time, "next_update": apart.life.time + DAY}
    forgetful = sign_crl(root, serials=(), number=newer.number + 1, **times)
    assert apart.refusals(forgetful) == ["crl-rolled-back"]
    numberless = sign_crl(root, serials=(first.serial_number,), number=None, **times)
    assert apart.refusals(numberless) == ["crl-rolled-back"]


def test_a_crl_of_nobody_here_is_refused(apart: Apart) -> None:
    stranger = forge_root("a stranger", subject=x509.Name([]), end=apart.life.time + YEAR)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger")])
    crl = sign_crl(stranger, issuer_name=name, next_update=apart.life.time + DAY)
    assert apart.refusals(crl) == ["crl-other-issuer"]


def test_a_crl_that_revokes_what_issues_waits_until_it_was_replaced(
    apart: Apart, tmp_path: Path
) -> None:
    issuing = apart.life.authorities.issuing.certificate
    file = tmp_path / "issuing.crt"
    file.write_bytes(certificates_pem([issuing]))
    signed = apart.sign(None, revoke=(str(file),), reason=Reason.KEY_COMPROMISE)
    assert apart.refusals(signed.crl) == ["conflict"]
    with pytest.raises(Refused, match="mesh-ctl ca revoke-issuing"):
        apart.install(signed.crl)


def test_a_damaged_file_is_refused(apart: Apart) -> None:
    signed = apart.sign(apart.csr())
    broken = bytearray(signed.crl)
    broken[-1] ^= 1
    assert apart.refusals(bytes(broken)) == ["crl-bad-signature"]
    der = bytearray(certified(signed).public_bytes(_DER))
    der[-1] ^= 1
    assert apart.refusals(x509.load_der_x509_certificate(bytes(der))) == ["unknown-authority"]


@pytest.mark.parametrize("number", range(12))
def test_a_kill_between_two_writes_costs_no_more_than_doing_it_again(
    number: int, apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = apart.life
    with monkeypatch.context() as patch:
        kill_before_write(number, patch)
        try:
            csr = apart.csr()
            signed = apart.sign(csr)
            apart.install(certified(signed), signed.crl)
        except Killed:
            pass
    apart.start()
    if life.generations == (1, None, ()):
        signed = apart.sign(apart.csr())
        apart.install(certified(signed), signed.crl)
    assert life.generations == (1, 2, ())
    life.go_to(life.authorities.issuing.validity.not_after - DAY)
    assert life.generations == (2, None, (1,))
    assert believed(life, life.authorities.root)


# A new root that is elsewhere, too.


def new_root(apart: Apart, tmp_path: Path) -> tuple[Path, x509.Certificate]:
    place = tmp_path / "offline-2"
    making = OfflineRoot.create(
        place, MESH, KeySpec(P256), passphrase=None, now=lambda: apart.life.time, generation=2
    )
    with closing(asyncio.run(making)) as root:
        return place, root.authority.certificate


def test_a_key_that_is_announced_is_not_given_up(apart: Apart, tmp_path: Path) -> None:
    _, new = new_root(apart, tmp_path)
    result_of(apart.life.root_steps.prepare(BY, "", new))
    with pytest.raises(Refused, match="is announced, and may be pinned"):
        apart.csr(anew=True)
    apart.install(certified(apart.sign(apart.csr())))
    with pytest.raises(Refused, match="is the prepared issuing CA's"):
        apart.csr(anew=True)


@pytest.mark.parametrize("together", [True, False])
def test_the_root_is_rotated_to_another_that_is_elsewhere(
    together: bool, apart: Apart, tmp_path: Path
) -> None:
    life, old = apart.life, apart.life.authorities.root
    place, new = new_root(apart, tmp_path)
    result_of(life.root_steps.prepare(BY, "", new))
    with pytest.raises(RootKeyAway, match="mesh-ctl ca root csr"):
        result_of(life.root_steps.activate(BY))
    first = certified(apart.sign(apart.csr()))
    csr = apart.csr()
    second = certified(Apart(life, place).sign(csr))
    if together:
        apart.install(first, second)
    else:
        assert apart.refusals(second) == ["conflict"], "chains lead to the old root still"
        apart.install(first)
        again = apart.csr()
        assert CaRequest.parse(again, MESH).key_id == CaRequest.parse(csr, MESH).key_id
        apart.install(certified(Apart(life, place).sign(csr)))
    assert life.generations == (1, 2, ())
    apart.start()
    result_of(life.root_steps.activate(BY))
    assert life.authorities.root_line.phase is Phase.ACTIVATED
    assert life.generations == (2, None, (1,))
    assert believed(life, old)
    assert not believed(life, new)
    result_of(life.root_steps.switch(BY))
    assert believed(life, new)
    assert not believed(life, old)
    result_of(life.root_steps.retire(BY))
    apart.start()
    assert life.authorities.roots == (new,)
    assert believed(life, new)


def theirs(apart: Apart) -> tuple[Authority, Authority]:
    """A root and an intermediate of somebody else's, with nothing of ours in their names."""
    made: list[Authority] = []
    for at, length in enumerate((None, 1)):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"theirs {at}")])
        replace = {
            x509.SubjectAlternativeName: None,
            x509.BasicConstraints: (x509.BasicConstraints(True, length), True),
        }
        options = {"subject": name, "replace": replace, "start": apart.life.time - DAY}
        end = apart.life.time + (9 - at) * YEAR
        above = made[-1] if made else None
        made.append(
            forge_root("theirs", end=end, **options)
            if above is None
            else forge_issuing(above, "theirs 1", end=end, **options)
        )
    return made[0], made[1]


def test_the_root_is_rotated_to_somebody_elses_and_what_is_in_between_stays(apart: Apart) -> None:
    life, old = apart.life, apart.life.authorities.root
    root, above = theirs(apart)
    result_of(life.root_steps.prepare(BY, "", root.certificate))
    csr = apart.csr()
    ours = certified(apart.sign(csr))
    request = CaRequest.parse(csr, MESH)
    foreign = forge(
        above,
        ISSUING,
        subject_key=life.rotator.rotation_steps.keys.load("issuing-2.key", MemoryKey.from_pem),
        subject=request.subject,
        start=life.time - HOUR,
        end=life.time + 2 * YEAR,
    )
    apart.install(ours, foreign, above.certificate)
    told = [act.facts["root"] for act in life.acts if act.facts["step"] == "installed"]
    assert told == [fingerprint_of(old), fingerprint_of(root.certificate)]
    result_of(life.root_steps.activate(BY))
    apart.start()
    assert life.authorities.issuing.intermediates == (ours,)
    assert believed(life, old)
    result_of(life.root_steps.switch(BY))
    assert life.authorities.issuing.intermediates == (foreign, above.certificate)
    assert believed(life, root.certificate)
    result_of(life.root_steps.retire(BY))
    apart.start()
    assert life.authorities.issuing.intermediates == (foreign, above.certificate)
    assert believed(life, root.certificate)
    assert not believed(life, old)
    life.pass_time(YEAR + DAY)
    waits = life.rotator.waiting()
    assert waits is not None
    assert waits.remedy.startswith("have it certified by CN=theirs 0: mesh-ctl ca root csr")


def test_one_that_issues_and_is_revoked_without_a_successor_is_followed_by_what_is_installed(
    apart: Apart,
) -> None:
    life, issuing = apart.life, apart.life.authorities.issuing
    revoked = RevokedAuthority.of(
        issuing.certificate, life.authorities.root, life.time, Reason.KEY_COMPROMISE, BY
    )
    life.current.adopt(life.authorities.with_revoked((revoked,)))
    signed = apart.sign(apart.csr())
    apart.install(certified(signed))
    life.pass_time(timedelta(seconds=2))
    assert life.authorities.issuing.certificate == certified(signed)


# Before the first start.


@define(eq=False)
class Beginning:
    """A state directory where no CA ever started, and an offline root."""

    life: Life
    place: Path

    @property
    def first(self) -> FirstInstallation:
        state = self.life.state
        return FirstInstallation(state, KeyFiles(state.private, None), lambda: self.life.time)


class Unborn(Life):
    """A CA that has not started yet."""

    def __attrs_post_init__(self) -> None:
        self.state.prepare()


@pytest.fixture
def beginning(tmp_path: Path) -> Beginning:
    life = Unborn(tmp_path, datetime.now(tz=None).astimezone())
    place = tmp_path / "offline"
    asyncio.run(
        OfflineRoot.create(place, MESH, KeySpec(P256), passphrase=None, now=lambda: life.time)
    ).close()
    return Beginning(life, place)


def begun(beginning: Beginning) -> tuple[Signed, x509.Certificate]:
    with closing(beginning.first) as first:
        first.open()
        csr, _ = result_of(first.request(MESH, KeySpec(P256)))
    apart = Apart(beginning.life, beginning.place)
    with closing(apart.root()) as root:
        above = root.authority.certificate
    return apart.sign(csr), above


def install(beginning: Beginning, *things: x509.Certificate | bytes) -> None:
    pem = certificates_pem([thing for thing in things if isinstance(thing, x509.Certificate)])
    crls = [thing for thing in things if isinstance(thing, bytes)]
    with closing(beginning.first) as first:
        first.open()
        first.install(asyncio.run(first.look_at(pem, crls)), BY)


def test_a_ca_begins_without_a_roots_key(beginning: Beginning) -> None:
    signed, root = begun(beginning)
    with pytest.raises(WrongState, match="mesh-ctl ca root install"):
        beginning.life.start()
    install(beginning, certified(signed), root, signed.crl)
    beginning.life.start()
    assert beginning.life.authorities.root == root
    assert beginning.life.authorities.root_key is None
    assert believed(beginning.life, root)
    assert not beginning.life.state.first_request.exists()


def test_a_ca_does_not_begin_with_what_does_not_fit(beginning: Beginning, tmp_path: Path) -> None:
    signed, root = begun(beginning)
    stranger = forge_root(
        "another", start=beginning.life.time - DAY, end=beginning.life.time + YEAR
    ).certificate
    for things, code in (
        ((certified(signed),), "not-a-root"),
        ((certified(signed), root, stranger), "not-a-root"),
        ((certified(signed), stranger), "unknown-authority"),
        ((root,), "credentials-do-not-fit"),
        ((certified(signed), root, signed.crl[:-3] + b"xxx"), "crl-bad-signature"),
    ):
        with pytest.raises(Refused) as refusal:
            install(beginning, *things)
        assert code in [problem.code for problem in refusal.value.problems]
        assert not beginning.life.state.root_certificate.exists()


def test_a_root_that_follows_another_is_no_beginning(beginning: Beginning) -> None:
    shutil.rmtree(beginning.place)
    making = OfflineRoot.create(
        beginning.place,
        MESH,
        KeySpec(P256),
        passphrase=None,
        now=lambda: beginning.life.time,
        generation=2,
    )
    asyncio.run(making).close()
    signed, root = begun(beginning)
    with pytest.raises(Refused, match="follows another root"):
        install(beginning, certified(signed), root)


def test_another_trust_domain_does_not_start_on_it(beginning: Beginning) -> None:
    signed, root = begun(beginning)
    install(beginning, certified(signed), root)
    with pytest.raises(WrongState, match=r"not of spiffe://other\.example"):
        _load_as_other(beginning)


def _load_as_other(beginning: Beginning) -> None:
    state = beginning.life.state
    result_of(
        load_or_create(
            state,
            KeyFiles(state.private, None),
            OTHER,
            beginning.life.time,
            root_key=KeySpec(P256),
            issuing_key=KeySpec(P256),
        )
    )


@pytest.mark.parametrize("number", range(9))
def test_a_beginning_that_is_killed_goes_on(
    number: int, beginning: Beginning, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        done = kill_before_write(number, patch)
        try:
            signed, root = begun(beginning)
            install(beginning, certified(signed), root, signed.crl)
        except Killed:
            pass
    assert len(done) <= number or done
    if not beginning.life.state.root_certificate.exists():
        signed, root = begun(beginning)
        install(beginning, certified(signed), root, signed.crl)
    beginning.life.start()
    assert believed(beginning.life, beginning.life.authorities.root)


def test_the_first_csr_is_the_same_each_time_unless_another_is_wanted(beginning: Beginning) -> None:
    with closing(beginning.first) as first:
        first.open()
        csr, _ = result_of(first.request(MESH, KeySpec(P256)))
        assert result_of(first.request(MESH, KeySpec(P256)))[0] == csr
        with pytest.raises(WrongState, match=r"say --trust-domain mesh\.local, or --new-key"):
            result_of(first.request(OTHER, KeySpec(P256)))
        other, request = result_of(first.request(OTHER, KeySpec(P256), anew=True))
        assert other != csr
        assert request.trust_domain == OTHER


def test_where_a_first_start_was_cut_short_nothing_begins(beginning: Beginning) -> None:
    beginning.life.state.unfinished.touch()
    with pytest.raises(WrongState, match="a first start was cut short"):
        beginning.first.open()


def test_where_a_ca_is_nothing_begins(apart: Apart) -> None:
    with pytest.raises(WrongState, match="there is a CA"):
        Beginning(apart.life, apart.place).first.open()
    apart.life.state.root_certificate.unlink()
    (apart.life.state.ca / "mesh.db").touch()
    with pytest.raises(WrongState, match="restore it from a backup"):
        Beginning(apart.life, apart.place).first.open()
