"""A CA's certificates and keys, as files that fit each other or not."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from cryptography import x509

from pki.audit.log import LogKey
from pki.codes import Code
from pki.errors import HOSTILE_INPUT, PkiError, Problem, Refused
from pki.issuing.root_line import RootLine
from pki.keys import KeyReference, MemoryKey, is_reference, key_id, spki_der
from pki.keys.pkcs8 import is_encrypted
from pki.svid.x509svid import load_certificates
from twisted_mesh.backup.archive import BETWEEN, REVOKED, ROOT_KEY, ROOTS
from twisted_mesh.ca import revoked_authorities
from twisted_mesh.ca.issuing_files import WrongState
from twisted_mesh.ca.root_document import read_line
from twisted_mesh.state.directory import StateError

_ROOT = "ca/root.crt"
_ACTIVE = "ca/issuing.crt"
_LOG_KEY = "audit.key"
_OF_ROOT = re.compile(r"ca/root(?:-(?:0|[1-9][0-9]{0,8}))?\.crt", re.ASCII)


class DoNotFit(Refused):
    """Certificates and keys of a CA that do not belong together."""

    code = Code.CREDENTIALS_DO_NOT_FIT


def check(files: Mapping[str, bytes]) -> list[str]:
    """The names of the keys that are encrypted, which cannot be held against their certificates.

    ``files`` is by the names of an archive. Raises :class:`DoNotFit` with everything that is wrong.
    """
    problems = list(_problems(files))
    if problems:
        raise DoNotFit(problems)
    return sorted(name for name, data in files.items() if _is_key(name) and is_encrypted(data))


def root_of(files: Mapping[str, bytes]) -> x509.Certificate:
    """Raises :class:`pki.errors.Malformed`."""
    return _certificate(_ROOT, files[_ROOT])


def issuers_of(files: Mapping[str, bytes]) -> dict[str, x509.Certificate]:
    """The issuing CAs, by the id of the key (:func:`pki.keys.key_id`). Raises :class:`pki.errors.Malformed`."""
    found = [
        _certificate(name, data)
        for name, data in files.items()
        if name.endswith(".crt") and name != BETWEEN and not _OF_ROOT.fullmatch(name)
    ]
    return {key_id(certificate.public_key()): certificate for certificate in found}


def between_of(files: Mapping[str, bytes]) -> tuple[x509.Certificate, ...]:
    """CAs of somebody else's between the issuing CAs and their root. Raises :class:`pki.errors.Malformed`."""
    return load_certificates(files[BETWEEN], BETWEEN) if BETWEEN in files else ()


def line_of(files: Mapping[str, bytes]) -> RootLine:
    """The roots. Raises :class:`pki.errors.Malformed` and :class:`DoNotFit`."""
    between = between_of(files)
    if ROOTS not in files:
        return RootLine(root_of(files), between=between)
    try:
        line = read_line(files[ROOTS], Path(ROOTS), issuers_of(files).values())
        return line.with_between(between)
    except WrongState as error:
        raise DoNotFit([_problem(ROOTS, f"cannot be used: {error}")]) from None


def _problems(files: Mapping[str, bytes]) -> Iterator[Problem]:
    certificates: dict[str, x509.Certificate] = {}
    for name in (_ROOT, _ACTIVE):
        if name not in files:
            yield _problem(name, "is missing")
    for name, data in files.items():
        if name.endswith(".crt"):
            try:
                certificates[name] = _certificate(name, data)
            except PkiError as error:
                yield _problem(name, f"cannot be read: {error}")
    if REVOKED in files:
        try:
            revoked_authorities.parse(files[REVOKED], Path(REVOKED))
        except StateError as error:
            yield _problem(REVOKED, f"cannot be used: {error}")
    held: set[bytes] = set()
    sealed = False
    for name, data in files.items():
        if _is_key(name) and is_encrypted(data):
            sealed = True
        elif _is_key(name):
            try:
                held |= _public(name, data)
            except PkiError as error:
                yield _problem(name, f"cannot be read: {error}")
    if _ROOT not in certificates or len(certificates) < sum(n.endswith(".crt") for n in files):
        return  # told already
    try:
        line = line_of(files)
    except DoNotFit as error:
        yield from error.problems
        return
    yield from _misfits(certificates, line, held, sealed=sealed)
    for name in files:
        if ROOT_KEY.fullmatch(name):
            yield from _wrong_root_key(files, certificates, line, name)


def _misfits(
    certificates: Mapping[str, x509.Certificate],
    line: RootLine,
    held: set[bytes],
    *,
    sealed: bool,
) -> Iterator[Problem]:
    for name, certificate in certificates.items():
        if name == _ROOT:
            if certificate != line.served:
                yield _problem(name, f"is not the root that {ROOTS} names")
            continue
        if name == BETWEEN:
            continue  # what leads nowhere is of no use to anybody
        if _OF_ROOT.fullmatch(name):
            if certificate not in line.roots:
                yield _problem(name, f"is none of the roots that {ROOTS} names")
            continue
        if line.root_of(certificate) is None:
            yield _problem(name, "was not issued by root.crt")
        if name == _ACTIVE and not sealed and spki_der(certificate.public_key()) not in held:
            yield _problem(name, "has no key beside it")


def _wrong_root_key(
    files: Mapping[str, bytes],
    certificates: Mapping[str, x509.Certificate],
    line: RootLine,
    name: str,
) -> Iterator[Problem]:
    data, stem = files[name], PurePosixPath(name).stem
    if is_encrypted(data):
        return
    try:
        held = _public(name, data)
        root = certificates.get(f"ca/{stem}.crt")
        number = int(stem.removeprefix("root-")) if stem != "root" else 0
        if root is None and number >= line.next_generation:
            return  # drawn, and of no root yet
        if root is None or held != {spki_der(root.public_key())}:
            owner = next(
                (n for n, c in certificates.items() if held == {spki_der(c.public_key())}), None
            )
            what = f" but of {PurePosixPath(owner).name}" if owner else ""
            yield _problem(name, f"is not the key of {stem}.crt{what}")
    except PkiError:
        pass  # told already


def references_in(files: Mapping[str, bytes]) -> dict[str, KeyReference]:
    """The keys that are elsewhere, by the names of their files. Raises :class:`pki.errors.Malformed`."""
    return {
        name: KeyReference.parse(data)
        for name, data in sorted(files.items())
        if _is_key(name) and is_reference(data)
    }


def _public(name: str, data: bytes) -> set[bytes]:
    if is_reference(data):
        return {spki_der(KeyReference.parse(data).public_key)}
    if PurePosixPath(name).name == _LOG_KEY:
        LogKey.from_pem("log", data)
        return set()
    return {spki_der(MemoryKey.from_pem(data).public_key)}


def _certificate(name: str, data: bytes) -> x509.Certificate:
    found = load_certificates(data, name)
    try:
        spki_der(found[0].public_key())
    except HOSTILE_INPUT:
        raise DoNotFit([_problem(name, "holds a key that cannot be decoded")]) from None
    return found[0]


def _is_key(name: str) -> bool:
    return name.endswith(".key")


def _problem(name: str, what: str) -> Problem:
    return Problem(
        Code.CREDENTIALS_DO_NOT_FIT,
        f"{name} {what}",
        "use files that were saved together",
        "",
        name,
    )
