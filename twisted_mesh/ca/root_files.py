"""The roots on disk: one document says which there are and how far their rotation is, and is replaced whole.

``roots.json`` (:mod:`twisted_mesh.ca.root_document`) is there from the first rotation on. ``root.crt`` is always the
root that chains lead to, and ``root-N.crt`` the other one; they and the names of the keys follow the document, also
after a crash in between. A key is known by its certificate, not by its name alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import define, evolve
from cryptography import x509

from pki.issuing.authority import Authority
from pki.issuing.profile import generation_of
from pki.issuing.root_line import RootLine, fingerprint_of
from pki.keys import KeptKey, key_id, spki_der
from pki.spiffe import TrustDomain
from pki.svid.bundle import BadBundle, TrustBundle
from pki.svid.x509svid import certificates_pem, load_certificates, subject_of, uri_names
from twisted_mesh.ca.issuing_files import WrongState, read_certificate
from twisted_mesh.ca.root_document import Document, is_signed, line_of, read, signed
from twisted_mesh.state.directory import StateDirectory, StateError, read_file, write_whole
from twisted_mesh.state.key_files import KeyFiles, remove_file
from twisted_mesh.state.key_owner import owner_of

#: Of generation 0 is a root of somebody else's.
_NUMBERED = re.compile(r"root-(0|[1-9][0-9]{0,8})\.(?:crt|key)", re.ASCII)


@define(eq=False, repr=False)
class RootFiles:
    """What it raises is :class:`StateError`, and names the file."""

    state: StateDirectory
    keys: KeyFiles

    # What there is.

    def load(self, trust_domain: TrustDomain) -> RootLine:
        """The roots as they are kept. Whether they have certified what issues is looked at with the issuing CAs."""
        document = self._document()
        line = line_of(document, self.state.roots) if document else self._only_root()
        line = evolve(line, between=self._between())
        for root in line.roots:
            self._demand_root(root, trust_domain)
        if document is not None:
            self._demand_consistent(line)
        return line

    def demand_signed(self, authorities: Iterable[Authority]) -> None:
        """Raises :class:`WrongState` for a document that none of the issuing CAs has signed."""
        document = self._document()
        if document is None or is_signed(document, [ca.certificate for ca in authorities]):
            return
        raise WrongState(
            f"{self.state.roots} was not signed by an issuing CA that is here, so that anybody may have written it: "
            f"restore it from a backup together with {self.state.ca / 'issuing.crt'}"
        )

    def signer(self) -> str:
        """The key id of the issuing CA that has signed the document; empty where there is none."""
        document = self._document()
        return document.signer if document is not None else ""

    def load_keys(self, line: RootLine) -> Mapping[str, KeptKey]:
        """The roots' keys that are here, by :func:`pki.keys.key_id`.

        Raises :class:`WrongState` for one that is neither root's, nor drawn for the next one.
        """
        owners = {key_id(root.public_key()): root for root in line.roots}
        found = {}
        for name in self._key_names():
            key = self.keys.kept(name, is_known=True)
            whose = key_id(key.public_key)
            if whose in owners:
                found[whose] = key
            elif not self._is_leftover(name, whose, line):
                raise WrongState(
                    f"{self.keys.path(name)} is not the key of {self._fitting(name)}"
                    f"{owner_of(key, self.state.ca)}: restore both from one backup"
                )
        return found

    def key_name(self, line: RootLine, root: x509.Certificate) -> str:
        """What the file of a root's key is called."""
        return f"{_stem(line, root)}.key"

    # What is changed.

    async def signed(self, line: RootLine, signer: Authority) -> bytes:
        """The document that says so, for :meth:`commit`. Raises :class:`pki.keys.SigningFailed`."""
        return await signed(line, signer)

    def commit(self, document: bytes) -> None:
        """From here on it is so."""
        write_whole(self.state.roots, document, 0o644)

    def tidy(self, line: RootLine, keys: Mapping[str, KeptKey]) -> list[KeptKey]:
        """Have the other files follow the document. Done again after a crash, it ends where it should.

        What comes back are keys of roots that are no more: their files are gone.
        """
        if not self.state.roots.exists():
            return []
        wanted = {}
        for root in line.roots:
            stem, key = _stem(line, root), keys.get(key_id(root.public_key()))
            wanted[f"{stem}.crt"] = root
            if key is not None and not self._has_key(f"{stem}.key", root):
                self._keep_elsewhere(f"{stem}.key", line, keys)
                self.keys.write(f"{stem}.key", key)
        for name, root in wanted.items():
            path, pem = self.state.ca / name, certificates_pem([root])
            if not path.exists() or read_file(path, "the certificate") != pem:
                write_whole(path, pem, 0o644)
        return self._remove_all_but(line, keys, wanted)

    def _keep_elsewhere(self, name: str, line: RootLine, keys: Mapping[str, KeptKey]) -> None:
        """What is in a file that is about to be overwritten gets its own name first."""
        for root in line.roots:
            own, key = self.key_name(line, root), keys.get(key_id(root.public_key()))
            if own != name and key is not None and self._has_key(name, root):
                self.keys.write(own, key)

    def _remove_all_but(
        self, line: RootLine, keys: Mapping[str, KeptKey], wanted: Mapping[str, x509.Certificate]
    ) -> list[KeptKey]:
        for path in sorted(self.state.ca.glob("root-*.crt")):
            if _NUMBERED.fullmatch(path.name) and path.name not in wanted:
                remove_file(path)
        gone = []
        ours = {key_id(root.public_key()) for root in line.roots}
        for name in self._key_names():
            number = _number(name)
            is_drawn = number is not None and number >= line.next_generation
            owned = {self.key_name(line, root): root for root in line.roots}
            if not is_drawn and (name not in owned or not self._has_key(name, owned[name])):
                with suppress(StateError):
                    key = self.keys.kept(name, is_known=True)
                    gone += [key] if key_id(key.public_key) not in ours else []
                self.keys.remove(name)
        return gone

    def _has_key(self, name: str, root: x509.Certificate) -> bool:
        if not self.keys.exists(name):
            return False
        key = self.keys.kept(name, is_known=True)
        return spki_der(key.public_key) == spki_der(root.public_key())

    def _key_names(self) -> Iterator[str]:
        """Of files that can be roots' keys."""
        for path in sorted(self.keys.directory.glob("root*.key")):
            if path.name == "root.key" or _NUMBERED.fullmatch(path.name):
                yield path.name

    def _is_leftover(self, name: str, whose: str, line: RootLine) -> bool:
        """Whether a crash may have left it: drawn for the next root, or of one that is believed no more."""
        number = _number(name)
        is_drawn = number is not None and number >= line.next_generation
        return is_drawn or whose in {root.key_id for root in line.former}

    def _fitting(self, name: str) -> Path:
        return self.state.ca / f"{Path(name).stem}.crt"

    # What must hold.

    def _document(self) -> Document | None:
        path = self.state.roots
        return read(read_file(path, "the roots"), path) if path.exists() else None

    def keep_between(self, certificates: Iterable[x509.Certificate]) -> None:
        """Keep CAs of somebody else's that stand between our issuing CAs and their root, beside those that are kept."""
        kept = dict.fromkeys((*self._between(), *certificates))
        if kept:
            write_whole(self.state.between, certificates_pem(tuple(kept)), 0o644)

    def _between(self) -> tuple[x509.Certificate, ...]:
        path = self.state.between
        if not path.exists():
            return ()
        return load_certificates(read_file(path, "the certificates"), str(path))

    def _only_root(self) -> RootLine:
        """As it is where no root was ever rotated."""
        path = self.state.root_certificate
        root = read_certificate(path)
        others = [p for p in self.state.ca.glob("root-*.crt") if _NUMBERED.fullmatch(p.name)]
        if others:
            raise WrongState(
                f"{others[0]} is there, and {self.state.roots}, which says what it is, is not: restore that from a "
                "backup"
            )
        if generation_of(root.subject) > 1:
            raise WrongState(
                f"{path} is of generation {generation_of(root.subject)}, and {self.state.roots}, which says what was "
                "before it, is gone: restore that from a backup"
            )
        return RootLine(root)

    def _demand_root(self, root: x509.Certificate, trust_domain: TrustDomain) -> None:
        path = self.state.root_certificate
        # A root of somebody else's names none: what it has certified of ours does.
        if uri_names(root) not in ([], [str(trust_domain.id)]):
            raise WrongState(
                f"{path} is the root of {' '.join(uri_names(root)) or 'another mesh'}, not of "
                f"{trust_domain.id}: choose another --trust-domain or --state-dir"
            )
        try:
            TrustBundle(trust_domain, (root,)).to_jwks_object()
        except BadBundle as error:
            raise WrongState(f"{path} cannot be told to anybody: {error}") from None

    def _demand_consistent(self, line: RootLine) -> None:
        path, served = self.state.roots, self.state.root_certificate
        names = {root.subject for root in line.roots}
        keys = {key_id(root.public_key()) for root in line.roots}
        if len(names) < len(line.roots) or len(keys) < len(line.roots):
            raise WrongState(f"{path} names one root twice: restore it from a backup")
        for root in line.roots:
            if line.root_of(root) != root:
                raise WrongState(
                    f"{path} names {subject_of(root)} as a root, which it has not signed itself: restore it from a "
                    "backup"
                )
        for certificate in line.both:
            if line.root_of(certificate) is None:
                raise WrongState(
                    f"{path} names a certificate of {subject_of(certificate)} that none of its roots has signed: "
                    "restore it from a backup"
                )
        if read_certificate(served) not in line.roots and not self._was_served(line):
            raise WrongState(
                f"{served} is none of the roots that {path} names: restore both from one backup"
            )
        known = {root.fingerprint for root in line.former}
        known.update(map(fingerprint_of, line.roots))
        for other in sorted(self.state.ca.glob("root-*.crt")):
            if _NUMBERED.fullmatch(other.name) and _fingerprint(other) not in known:
                raise WrongState(
                    f"{other} is none of the roots that {path} names: move it away, or restore both from one backup"
                )

    def _was_served(self, line: RootLine) -> bool:
        """Whether a crash may have left the one before the present root."""
        return _fingerprint(self.state.root_certificate) in {r.fingerprint for r in line.former}


def _stem(line: RootLine, root: x509.Certificate) -> str:
    return "root" if root == line.served else f"root-{generation_of(root.subject)}"


def _number(name: str) -> int | None:
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else None


def _fingerprint(path: Path) -> str:
    return fingerprint_of(read_certificate(path))
