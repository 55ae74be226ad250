"""Keys on a token: made so that they never leave it, found by label and id, signed with, and told about."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from cryptography import x509
from pkcs11 import (
    Attribute,
    KeyType,
    Mechanism,
    MechanismFlag,
    Object,
    ObjectClass,
    PrivateKey,
    Session,
    exceptions,
)

from pki.errors import HOSTILE_INPUT, Malformed, printable
from pki.keys import KeyAlgorithm, PublicKey
from pki.keys.cryptoki import CKA_MODULUS_BITS, TokenTerms
from pki.keys.pkcs11_uri import Pkcs11Uri
from twisted_mesh.keystores.errors import KeyStoreRefused

#: As many are looked at where one is to be found, and named where it is missing.
_MOST = 16
#: A private key that signs and does nothing else, and that nobody takes out.
_PRIVATE = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
_PUBLIC = {Attribute.VERIFY: True, Attribute.ENCRYPT: False, Attribute.WRAP: False}
#: How it is kept.
_KEEPING = (
    Attribute.EXTRACTABLE,
    Attribute.NEVER_EXTRACTABLE,
    Attribute.SENSITIVE,
    Attribute.LOCAL,
)


def terms_of(algorithm: KeyAlgorithm) -> TokenTerms[Any]:
    """What tokens call it. Raises :class:`KeyStoreRefused` where no token is asked for such keys."""
    terms = algorithm.kind.on_token
    if terms is None:
        others = ", ".join(row for row in KeyAlgorithm if row.kind.on_token is not None)
        raise KeyStoreRefused(
            f"{algorithm} keys cannot be on a token here: choose one of {others}, or keep the key in a file"
        )
    return terms


def generate(session: Session, terms: TokenTerms[Any], label: str, key_id: bytes) -> None:
    """A key pair on the token. ``session`` may write; what it gives is void once that is closed."""
    template = {Attribute(name): value for name, value in terms.template.items()}
    bits = template.pop(Attribute(CKA_MODULUS_BITS), None)
    size = bits if isinstance(bits, int) else None
    session.generate_keypair(
        KeyType(terms.key_type),
        size,
        mechanism=Mechanism(terms.generation),
        id=key_id,
        label=label,
        store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        public_template={**template, **_PUBLIC},
        private_template=_PRIVATE,
    )


def sign(private: PrivateKey, terms: TokenTerms[Any], data: bytes, pin: str | None) -> bytes:
    """The signature as certificates carry it. Raises what the binding raises, and :class:`KeyStoreRefused`."""
    if not hasattr(private, "sign"):
        raise KeyStoreRefused(
            "the key on the token may not sign (CKA_SIGN is false): name another, or have one made"
        )
    unable: exceptions.PKCS11Error = exceptions.MechanismInvalid()
    for way in terms.ways(data):
        try:
            answer = private.sign(way.operand, mechanism=Mechanism(way.mechanism), pin=pin)
        except (exceptions.MechanismInvalid, exceptions.FunctionNotSupported) as error:
            unable = error
            continue
        try:
            return terms.signature(answer)
        except Malformed as error:
            raise KeyStoreRefused(f"{error}: look at the token and its module") from None
    raise unable


def wants_pin(private: PrivateKey) -> bool:
    """Whether each signature needs it (CKA_ALWAYS_AUTHENTICATE)."""
    return flags(private, (Attribute.ALWAYS_AUTHENTICATE,)).get("ALWAYS_AUTHENTICATE", False)


def private_keys(session: Session, uri: Pkcs11Uri) -> list[PrivateKey]:
    """Those that have its label and id, as far as it names them."""
    template: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    if uri.object is not None:
        template[Attribute.LABEL] = uri.object
    if uri.id is not None:
        template[Attribute.ID] = uri.id
    return list(_first(session, template))


def the_private_key(session: Session, uri: Pkcs11Uri) -> PrivateKey:
    """The one of them. Raises :class:`KeyStoreRefused`, and says what there is."""
    found = private_keys(session, uri)
    if len(found) == 1:
        return found[0]
    if not found:
        there = ", ".join(map(_named, private_keys(session, Pkcs11Uri()))) or "none"
        raise KeyStoreRefused(
            f"the token has no private key {_asked(uri)}; those that are there: {there}"
        )
    raise KeyStoreRefused(
        f"{len(found)} private keys on the token are {_asked(uri)}, and it is not guessed which: name the id= too, of "
        f"{', '.join(map(_named, found[:_MOST]))}"
    )


def public_half(session: Session, private: PrivateKey) -> PublicKey:
    """By the public key or the certificate beside it. Raises :class:`KeyStoreRefused` where there is neither."""
    key_type = private[Attribute.KEY_TYPE]
    label, key_id = id_of(private)
    beside: dict[Attribute, Any] = {Attribute.ID: key_id} if key_id else {Attribute.LABEL: label}
    objects: list[Object] = [
        *_first(session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, **beside}),
        private,  # one of RSA has its modulus
    ]
    for algorithm in KeyAlgorithm:
        terms = algorithm.kind.on_token
        if terms is None or terms.key_type != key_type:
            continue
        for one in objects:
            with suppress(Malformed, exceptions.PKCS11Error):
                found: PublicKey = terms.public_key(_described(one, terms))
                return found
    for one in _first(session, {Attribute.CLASS: ObjectClass.CERTIFICATE, **beside}):
        with suppress(*HOSTILE_INPUT, exceptions.PKCS11Error):
            key = x509.load_der_x509_certificate(one[Attribute.VALUE]).public_key()
            if isinstance(key, PublicKey):
                return key
    raise KeyStoreRefused(
        f"the token has no public key beside the private key {_named(private)}, of {', '.join(KeyAlgorithm)}: write it "
        "there with the same id (pkcs11-tool --write-object KEY.pub --type pubkey --id …)"
    )


def id_of(one: Object) -> tuple[str, bytes]:
    """Its label and id, as far as it has them."""
    label, key_id = "", b""
    with suppress(exceptions.PKCS11Error, UnicodeDecodeError):
        label = one[Attribute.LABEL]
    with suppress(exceptions.PKCS11Error):
        key_id = one[Attribute.ID]
    return label, key_id


def flags(private: PrivateKey, attributes: Iterable[Attribute] = _KEEPING) -> Mapping[str, bool]:
    """Those of them that the token tells of."""
    found = {}
    for attribute in attributes:
        with suppress(exceptions.AttributeTypeInvalid, exceptions.AttributeSensitive):
            found[attribute.name] = bool(private[attribute])
    return found


def refuse_extractable(private: PrivateKey) -> None:
    """Raises :class:`KeyStoreRefused` for a key that can be taken out: then it may be anywhere."""
    kept = flags(private)
    if kept.get("EXTRACTABLE", True) or not kept.get("SENSITIVE", False):
        raise KeyStoreRefused(
            f"the key {_named(private)} can be taken out of the token (CKA_EXTRACTABLE, or not CKA_SENSITIVE): no CA "
            "signs by it; have one made there, by a URI without object= and id="
        )


def destroy(session: Session, uri: Pkcs11Uri) -> None:
    """Delete the key and its public half. ``session`` may write.

    Raises :class:`KeyStoreRefused` for a URI that names no key, which is as many as the token has.
    """
    if not uri.object and not uri.id:
        raise KeyStoreRefused(
            f"{uri} names no key of the token, neither by label (object=) nor by id=: nothing was deleted"
        )
    for private in private_keys(session, uri):
        _, key_id = id_of(private)
        if key_id:
            for public in _first(
                session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: key_id}
            ):
                public.destroy()
        private.destroy()


def _first(session: Session, template: dict[Attribute, Any]) -> list[Any]:
    found = []
    for one in session.get_objects(template):
        found.append(one)
        if len(found) == _MOST:
            break
    return found


def _described(one: Object, terms: TokenTerms[Any]) -> dict[int, bytes]:
    return {name: bytes(one[Attribute(name)]) for name in terms.described_by}


def _named(one: Object) -> str:
    label, key_id = id_of(one)
    return f"{printable(label, 60)!r} (id {key_id.hex(':') or 'none'})"


def _asked(uri: Pkcs11Uri) -> str:
    wanted = [repr(printable(uri.object, 60))] if uri.object is not None else []
    if uri.id is not None:
        wanted.append(f"id {uri.id.hex(':')}")
    return " and ".join(wanted) or "at all"
