"""A PKCS #11 token as a key store: keys are made on it, never leave it, and sign there."""

import os
import secrets
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar

from attrs import define, evolve, field
from pkcs11 import PrivateKey

from pki.errors import ANY_ERROR, Malformed, PkiError, printable
from pki.keys import KeyAlgorithm, KeyReference, PublicKey, signature_over, weaknesses
from pki.keys.pkcs11_uri import Pkcs11Uri
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.interface import KeyStore
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.whereabouts import Whereabouts
from twisted_mesh.pkcs11 import objects
from twisted_mesh.pkcs11.access import Access, Seat, Work
from twisted_mesh.pkcs11.failures import TokenRefused
from twisted_mesh.pkcs11.login import Login
from twisted_mesh.pkcs11.module import Module, module_at
from twisted_mesh.pkcs11.pool import SESSIONS, SessionPool
from twisted_mesh.pkcs11.tokens import serial_of
from twisted_mesh.runtime.log import logger

T = TypeVar("T")
_log = logger("keys")

#: Seconds that a signature may take, and that a key may take to be made: of RSA-4096 a smart card takes a minute.
PATIENCE, PATIENCE_FOR_A_KEY = 10.0, 120.0
_MOST_SESSIONS = 64
_NONCE = 32


@define(eq=False, repr=False)
class Pkcs11Store:
    """One token: the :class:`KeyStore` of its URI."""

    wanted: Pkcs11Uri
    pool: SessionPool
    access: Access
    patience: float = PATIENCE
    problem: PkiError | None = field(default=None, init=False)
    own_pin: str = field(default="", init=False)
    """There is none: a token asks for a PIN of another kind."""

    @classmethod
    def of(cls, uri: Pkcs11Uri, ground: StoreGround) -> "Pkcs11Store":
        """Nothing is opened. Raises :class:`Malformed` for a URI that no store can be opened by."""
        sessions, patience = _numbers(uri)
        access = Access(_module(uri), uri, Login(lambda: ground.pins.pin(uri.pin_source)))
        return cls(uri, SessionPool(access, ground.reactor, sessions), access, patience)

    @property
    def uri(self) -> str:
        """The token's, without how it is reached."""
        return str(self.wanted.token_only)

    def start(self) -> None:
        """Threads begin; the module is loaded by the first of them that has something to do."""
        self.access.module.use(self.access)
        self.pool.start()

    async def stop(self) -> None:
        """Sessions are closed, and the module with the last store that uses it."""
        await self.pool.stop()
        self.access.module.leave(self.access)

    async def look(self) -> None:
        """Whether the token is there and lets us in."""
        with suppress(PkiError):
            await self._run(_look, self.patience, "whether it is there", at_once=True)

    def try_again(self) -> bool:
        """The same PIN once more, be it the last try; whether it is another one."""
        return self.access.login.try_again()

    def holds(self, uri: str) -> bool:
        """Whether the URI names no other token than ours."""
        try:
            named = _parsed(uri)
        except PkiError:
            return False
        ours = self.wanted
        return all(
            getattr(named, name) in (None, getattr(ours, name)) or getattr(ours, name) is None
            for name in ("token", "serial", "manufacturer", "model")
        )

    def key(self, reference: KeyReference) -> StoredKey:
        """Nothing is asked."""
        return StoredKey(reference, self._sign)

    async def generate(self, algorithm: KeyAlgorithm, label: str) -> StoredKey:
        """It is proved before it is given: by its attributes, by what weak keys are known by, and by a signature."""
        terms = objects.terms_of(algorithm)
        key_id = secrets.token_bytes(16)
        place = Pkcs11Uri(object=label, id=key_id)

        def make(seat: Seat) -> KeyReference:
            session, (_, token) = seat.searchable(), seat.open()
            # An earlier try may have made it, and could not say so.
            if not objects.private_keys(session, place):
                writing = token.open(rw=True)
                try:
                    objects.generate(writing, terms, label, key_id)
                finally:
                    writing.close()
            private = objects.the_private_key(session, place)
            objects.refuse_extractable(private)
            return self._reference(seat, private, objects.public_half(session, private))

        try:
            reference = await self._run(make, PATIENCE_FOR_A_KEY, "a new key")
            return await self._proved(reference)
        except KeyStoreRefused:
            with suppress(PkiError):
                await self._destroy(place)
            raise

    async def find(self, uri: str) -> StoredKey:
        """By label, id or both. A key that can be taken out is refused."""
        wanted = _parsed(uri)
        if wanted.type not in (None, "private") or wanted.vendor:
            raise KeyStoreRefused(
                f"{uri} names no private key: it has a label (object=), an id=, or both"
            )

        def look_for(seat: Seat) -> KeyReference:
            session = seat.searchable()
            private = objects.the_private_key(session, wanted)
            objects.refuse_extractable(private)
            return self._reference(seat, private, objects.public_half(session, private))

        return await self._proved(await self._run(look_for, self.patience, "a search"))

    async def destroy(self, reference: KeyReference) -> None:
        """Private and public half."""
        await self._destroy(_parsed(reference.uri))

    async def whereabouts(self, reference: KeyReference) -> Whereabouts:
        """What the token says of itself and of the key."""

        def ask(seat: Seat) -> Whereabouts:
            _, token = seat.open()
            private, _ = self._found(seat, reference.uri, fresh=True)
            label, key_id = objects.id_of(private)
            kept = objects.flags(private)
            never = kept.get("NEVER_EXTRACTABLE")
            return Whereabouts(
                "pkcs11",
                reference.uri,
                store=printable(token.label, 32),
                manufacturer=printable(token.manufacturer_id.rstrip(), 32),
                model=printable(token.model.rstrip(), 16),
                serial=serial_of(token),
                label=printable(label, 100),
                id=key_id.hex(),
                is_extractable=kept.get("EXTRACTABLE"),
                was_ever_extractable=None if never is None else not never,
                is_sensitive=kept.get("SENSITIVE"),
                is_local=kept.get("LOCAL"),
            )

        return await self._run(ask, self.patience, "where a key is")

    async def _sign(self, reference: KeyReference, data: bytes) -> bytes:
        terms = objects.terms_of(reference.algorithm)

        def sign(seat: Seat) -> bytes:
            private, wants_pin = self._found(seat, reference.uri)
            pin = self.access.login.confirm(seat.open()[1]) if wants_pin else None
            return objects.sign(private, terms, data, pin)

        return await self._run(sign, self.patience, "a signature")

    async def _proved(self, reference: KeyReference) -> StoredKey:
        """Raises :class:`KeyStoreRefused` for a weak key, and one whose halves do not belong together."""
        if found := weaknesses(reference.public_key):
            raise KeyStoreRefused(
                f"the token's key is weak: {'; '.join(problem.detail for problem in found)}; such a key is refused by "
                "all others, too: choose another algorithm, or another token"
            )
        key = self.key(reference)
        await signature_over(secrets.token_bytes(_NONCE), key, key.public_key)
        return key

    async def _destroy(self, place: Pkcs11Uri) -> None:
        def remove(seat: Seat) -> None:
            seat.searchable()
            _, token = seat.open()
            seat.keys.clear()
            writing = token.open(rw=True)
            try:
                objects.destroy(writing, place)
            finally:
                writing.close()

        await self._run(remove, self.patience, "a key to be deleted")

    def _found(self, seat: Seat, uri: str, *, fresh: bool = False) -> tuple[PrivateKey, bool]:
        if not fresh and uri in seat.keys:
            return seat.keys[uri]
        session, (_, token) = seat.searchable(), seat.open()
        wanted = _parsed(uri)
        if wanted.serial is not None and wanted.serial != serial_of(token):
            raise KeyStoreRefused(
                f"the key is on the token with serial {wanted.serial}, and this one has {serial_of(token)}: put in "
                "that one; or, if its keys were copied, change the serial= in the key's file"
            )
        private = objects.the_private_key(session, wanted)
        seat.keys[uri] = found = (private, objects.wants_pin(private))
        return found

    def _reference(self, seat: Seat, private: PrivateKey, public: PublicKey) -> KeyReference:
        _, token = seat.open()
        label, key_id = objects.id_of(private)
        named = Pkcs11Uri(
            token=token.label.rstrip(),
            serial=serial_of(token) or None,
            object=label or None,
            id=key_id or None,
        )
        wanted = self.wanted
        return KeyReference(
            str(evolve(named, manufacturer=wanted.manufacturer, model=wanted.model)), public
        )

    async def _run(self, work: Work[T], seconds: float, what: str, *, at_once: bool = False) -> T:
        try:
            result = await self.pool.run(work, seconds, what, at_once=at_once)
        except (KeyStoreAway, TokenRefused) as error:
            self.problem = error
            raise
        except KeyStoreRefused:
            self.problem = None  # of a key, by a token that answers
            raise
        except ANY_ERROR as error:
            # What the binding makes of answers that nobody has thought of, such as a label that is no UTF-8.
            _log.failure(
                "the token {uri} broke what was asked of it", event="token-broke", uri=self.uri
            )
            self.problem = KeyStoreAway(
                f"the key's token has answered what cannot be made sense of ({type(error).__name__}): the log has "
                "more; see whether another program can use it"
            )
            raise self.problem from None
        self.problem = None
        return result


def open_store(uri: str, ground: StoreGround) -> KeyStore:
    """The token that ``uri`` names. Nothing is opened yet. Raises :class:`pki.errors.PkiError`."""
    return Pkcs11Store.of(Pkcs11Uri.parse(uri), ground)


@lru_cache(maxsize=1024)
def _parsed(uri: str) -> Pkcs11Uri:
    return Pkcs11Uri.parse(uri)


def _look(seat: Seat) -> None:
    seat.searchable()
    _, token = seat.open()
    token.slot.get_token()


def _module(uri: Pkcs11Uri) -> Module:
    if uri.pin_value is not None:
        raise Malformed(
            "the token's URI has a pin-value: whoever lists processes reads it. Change that PIN, and name a file"
        )
    if uri.vendor:
        names = ", ".join(printable(name, 40) for name, _ in uri.vendor)
        raise Malformed(
            f"the token's URI has what no token is known by (RFC 7512 section 2.5): {names}"
        )
    path = uri.module_path or ""
    if not os.path.isabs(path) or "\0" in path:
        raise Malformed(
            "the token's URI says by module-path= which PKCS #11 module reaches it, by its whole path: "
            f"{uri.token_only}?module-path=/usr/lib/softhsm/libsofthsm2.so"
        )
    return module_at(path)


def _numbers(uri: Pkcs11Uri) -> tuple[int, float]:
    """``sessions=`` and ``timeout=``, vendor attributes of ours (RFC 7512 section 2.4)."""
    asked = {"sessions": SESSIONS, "timeout": int(PATIENCE)}
    most = {"sessions": _MOST_SESSIONS, "timeout": 300}
    for name, value in uri.vendor_query:
        if name not in asked:
            raise Malformed(
                f"the token's URI asks for {printable(name, 40)}=, which nobody knows: there are pin-source=, "
                "module-path=, algorithm=, sessions= and timeout="
            )
        if not (value.isdecimal() and value.isascii() and 1 <= int(value[:9]) <= most[name]):
            raise Malformed(f"{name}= in the token's URI is a number from 1 to {most[name]}")
        asked[name] = int(value)
    return asked["sessions"], float(asked["timeout"])
