"""What is left of a distrusted root: which certificate would bring its key back to life, and which are harmless."""

from datetime import timedelta

import pytest
from cryptography import x509

from pki.issuing.authority import Authority
from pki.issuing.profile import ISSUING, ROOT
from pki.issuing.remnants import Remains, examine
from pki.keys import MemoryKey
from tests.authorities import MESH, NOW, key
from twisted_mesh.testing import forge

STOLEN, OTHER, ISSUER, DEEPER = (key(f"remnants {n}") for n in range(4))


def made(
    issuer: Authority | None, subject: MemoryKey, name: str, profile: object = ISSUING
) -> Authority:
    certificate = forge(
        issuer,
        profile,  # type: ignore[arg-type]
        subject_key=subject,
        trust_domain=MESH,
        subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        start=NOW,
        end=NOW + timedelta(days=1),
    )
    return Authority(certificate, subject)


OLD = made(None, STOLEN, "old root", ROOT)
NEW = made(None, OTHER, "new root", ROOT)
BY_OLD, BY_NEW = made(OLD, ISSUER, "issuing"), made(NEW, ISSUER, "issuing")


def found(*certificates: Authority) -> dict[str, Remains]:
    where = [(str(number), one.certificate) for number, one in enumerate(certificates)]
    remnants = examine(OLD.certificate, [NEW.certificate], where)
    return {remnant.where: remnant.remains for remnant in remnants}


def test_what_leads_to_it_is_dead() -> None:
    below = made(BY_OLD, DEEPER, "below")
    assert found(OLD, BY_OLD) == {"0": Remains.DEAD, "1": Remains.DEAD}
    assert found(NEW, BY_NEW) == {}
    assert found(below) == {}, "what leads nowhere, and is not of that root, says nothing"


def test_an_issuing_key_that_both_have_certified_survives() -> None:
    assert found(BY_OLD, BY_NEW) == {"0": Remains.DEAD, "1": Remains.SURVIVES}


@pytest.mark.parametrize("profile", [ROOT, ISSUING], ids=["root", "issuing"])
def test_the_stolen_key_below_a_believed_root_revives(profile: object) -> None:
    crossed = made(NEW, STOLEN, "old root", profile)
    revived = {"0": Remains.REVIVES, "1": Remains.REVIVES}
    assert found(OLD, crossed) == revived, "the old root itself leads to the new one then"


def test_it_revives_however_long_the_way_and_whatever_it_is_called() -> None:
    deep = made(made(NEW, DEEPER, "deeper"), STOLEN, "somebody else")
    way = made(NEW, DEEPER, "deeper")
    assert found(deep, way) == {"0": Remains.REVIVES}
    assert found(deep) == {}, "a way that nobody has is none"


def test_a_twin_of_the_believed_roots_name_revives_nothing() -> None:
    twin = made(None, key("remnants 5"), "new root", ROOT)
    assert found(made(twin, STOLEN, "old root")) == {}


def test_each_is_told_once() -> None:
    where = [("a", OLD.certificate), ("a", OLD.certificate), ("b", OLD.certificate)]
    remnants = examine(OLD.certificate, [NEW.certificate], where)
    assert [remnant.where for remnant in remnants] == ["a", "b"]
