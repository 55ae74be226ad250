"""A signer as a CA's key store: keys are made there, sign there, and stay."""

import re
from collections.abc import Collection

from attrs import define, field
from cryptography.hazmat.primitives.serialization import load_der_public_key
from twisted.internet.defer import Deferred

from pki.errors import ANY_ERROR, HOSTILE_INPUT, PkiError, Problem, printable
from pki.keys import KeyAlgorithm, KeyReference, UnusableKey, is_certifiable, spki_der
from twisted_mesh.keystores.errors import KeyStoreAway, KeyStoreRefused, RefusedByRule
from twisted_mesh.keystores.ground import StoreGround
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.keystores.whereabouts import Whereabouts
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.signer.address import SCHEME, BadSigner, SignerAddress
from twisted_mesh.signer.client import SignerClient, SignerRefused
from twisted_mesh.signer.client_key import client_tls
from twisted_mesh.signer.messages import Key, KeyPurpose
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.tls.pinned_client import PinnedTls

_log = logger("keys")
#: Seconds for a look at whether it is there: those who have something to sign wait for no longer.
_LOOKING = 2.0
#: What a signer calls keys.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,199}", re.ASCII)

#: The rules about what our own caller has asked for (docs/SIGNER.md): asking again changes nothing. The others are
#: about us.
_OF_THE_CALLER = frozenset(
    ("trust-domain", "spiffe-id", "names", "host-names", "publication", "subject", "profile")
)

_UNREADABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, PkiError)


@define(eq=False, repr=False)
class SignerStore:
    """A :class:`~twisted_mesh.keystores.interface.KeyStore`.

    While the signer does not answer, whoever has something to sign looks first whether it does again, all of them by
    one question: nobody waits for longer than that takes.
    """

    address: SignerAddress
    ground: StoreGround
    problem: PkiError | None = field(default=None, init=False)
    """Why it does not sign."""
    own_pin: str = field(default="", init=False)
    """Of our key, where we prove ourselves by one: over TLS."""
    _client: SignerClient | None = field(default=None, init=False)
    """While it is open."""
    _unstarted: PkiError | None = field(default=None, init=False)
    """Why it could not be opened."""
    _is_unreachable: bool = field(default=False, init=False)
    _waiting: list[Deferred[Collection[str] | None]] = field(factory=list, init=False)
    """Those who want to know whether it answers; the first of them has asked."""
    _wanted: dict[str, None] = field(factory=dict, init=False)
    """The names of keys that somebody here has asked for, in that order."""

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"{SCHEME}{self.address.where}"

    def start(self) -> None:
        """See the protocol. The key that we prove ourselves by is made now, where there is none."""
        try:
            tls = None if self.address.path else self._tls()
            self._client = SignerClient(self.ground.reactor, self.address, tls)
        except (PkiError, OSError) as error:
            self.problem = self._unstarted = KeyStoreRefused(f"{self.uri} cannot be asked: {error}")

    def _tls(self) -> PinnedTls:
        """What we show. Raises :class:`PkiError`, also where nobody has said whom to believe: then with our own pin."""
        self.ground.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = client_tls(
            KeyFiles(self.ground.directory),
            self.address.pins,
            wall_clock(),
            requires_pq=self.ground.requires_pq,
        )
        self.own_pin = str(found.own_pin)
        ours = f"this CA shows it the key {found.own_pin} (mesh-signer --client-pin)"
        if not found.pins:
            raise BadSigner(
                f"whom to believe there is not said; {ours}. Start the signer with that, and add ?pin= with the key "
                "that it prints"
            )
        _log.info(
            "At the signer {where} this CA proves itself by the key {pin} (mesh-signer --client-pin)",
            event="signer-client-key",
            where=self.address.where,
            pin=str(found.own_pin),
        )
        return found

    async def stop(self) -> None:
        """See the protocol."""
        client, self._client = self._client, None
        if client is not None:
            client.hang_up()

    async def look(self) -> None:
        """See the protocol. A signer whose own token is away has a problem too, and says of which key."""
        try:
            await self._find_out()
        except ANY_ERROR:
            _log.failure("a look at {uri} broke", event="key-store-broke", uri=self.uri)

    async def _find_out(self) -> None:
        held = await self._reach()
        if held is None or self._client is None:
            return
        problem: PkiError | None = None
        for name in tuple(self._wanted):
            if name not in held:
                continue
            try:
                said = (await self._client.whereabouts(name)).problem
            except PkiError as error:
                problem = self._told(error)
                break
            if said:
                problem = KeyStoreAway(
                    f"the key {name} of {self.uri} does not sign: {printable(said)}"
                )
                break
        self.problem = problem

    async def _reach(self) -> Collection[str] | None:
        """The names of the keys that it holds; None where it does not answer. All who ask ask one question."""
        if self._client is None:
            return None
        answer: Deferred[Collection[str] | None] = Deferred()
        self._waiting.append(answer)
        if len(self._waiting) == 1:
            _ = spawn(self._ask_for_all(self._client), "a look at a signer", _log)
        return await answer

    async def _ask_for_all(self, client: SignerClient) -> None:
        held: Collection[str] | None = None
        try:
            held = await self._ask(client)
        finally:
            waiting, self._waiting = self._waiting, []
            for answer in waiting:
                answer.callback(held)

    async def _ask(self, client: SignerClient) -> Collection[str] | None:
        try:
            held = await client.keys(_LOOKING)
        except PkiError as error:
            self._told(error)
            return None
        if self._is_unreachable:
            self._is_unreachable, self.problem = False, None
        return frozenset(key.name for key in held)

    def try_again(self) -> bool:
        """See the protocol. Nothing is refused for good here; what was wrong with our own key may be right now."""
        if self._unstarted is not None:
            self.problem = self._unstarted = None
            self.start()
        return False

    def holds(self, uri: str) -> bool:
        """See the protocol."""
        return uri.startswith(SCHEME) and bool(_NAME.fullmatch(uri, len(SCHEME)))

    def key(self, reference: KeyReference) -> StoredKey:
        """See the protocol."""
        self._wanted[_name(reference)] = None
        return StoredKey(reference, self._sign)

    async def generate(self, algorithm: KeyAlgorithm, label: str) -> StoredKey:
        """See the protocol."""
        client = await self._open()
        try:
            made = await client.make(_purpose(label), algorithm, label)
        except PkiError as error:
            raise self._told(error) from None
        return self._stored(made, algorithm)

    async def find(self, uri: str) -> StoredKey:
        """See the protocol."""
        name, client = uri.removeprefix(SCHEME), await self._open()
        try:
            held = await client.keys()
        except PkiError as error:
            raise self._told(error) from None
        for key in held:
            if key.name == name:
                return self._stored(key, None)
        there = ", ".join(sorted(printable(key.name, 100) for key in held)) or "none"
        raise KeyStoreRefused(
            f"{self.uri} has no key {printable(name, 100)}: it has {there}; name one of these with key=, or none and "
            "have one made"
        )

    async def destroy(self, reference: KeyReference) -> None:
        """Never: a stolen CA would end its own trust domain."""
        raise KeyStoreRefused(
            f"{self.uri} deletes no key for a CA: {_name(reference)} is removed on the signer's machine, where it is"
        )

    async def whereabouts(self, reference: KeyReference) -> Whereabouts:
        """See the protocol."""
        name, client = _name(reference), await self._open()
        try:
            told = await client.whereabouts(name)
        except PkiError as error:
            raise self._told(error) from None
        behind = printable(told.token_label or told.store, 100)
        problem = KeyStoreAway(printable(told.problem)).problems[0] if told.problem else None
        return Whereabouts(
            kind="signer",
            uri=reference.uri,
            store=f"{self.address.where} ({behind})",
            model=printable(told.token_model, 100),
            serial=printable(told.token_serial, 100),
            label=printable(told.object_label, 200),
            id=printable(told.object_id, 200),
            is_extractable=told.is_extractable,
            is_sensitive=told.is_sensitive,
            is_local=told.is_local,
            problem=problem,
        )

    async def _sign(self, reference: KeyReference, data: bytes) -> bytes:
        client = await self._open()
        try:
            return await client.sign(_name(reference), data)
        except PkiError as error:
            raise self._told(error) from None

    async def _open(self) -> SignerClient:
        """Whom to ask. Raises as all that is awaited does."""
        if self._unstarted is not None:
            raise self._unstarted
        if self._client is not None and self._is_unreachable:
            held = await self._reach()
            if held is None and self.problem is not None:
                raise self.problem
        if self._client is None:
            raise KeyStoreAway(f"{self.uri} is not open: this program starts or stops")
        return self._client

    def _told(self, error: PkiError) -> PkiError:
        """What a question came to, as the protocol has it; and what it says of the store."""
        problem = error.problems[0]
        if isinstance(error, SignerRefused):
            text = _spoken(problem, f"{self.uri} says no: ")
            if not error.is_for_now:
                kind = RefusedByRule if problem.rule in _OF_THE_CALLER else KeyStoreRefused
                return kind(text)
            away = KeyStoreAway(_spoken(problem, f"{self.uri} does not sign now: "))
            if error.status >= 500:
                self.problem = away
            return away
        away = KeyStoreAway(_spoken(problem, f"{self.uri}: "))
        self._lost(away)
        return away

    def _lost(self, away: KeyStoreAway) -> None:
        self.problem, self._is_unreachable = away, True
        if self._client is not None:
            self._client.hang_up()

    def _stored(self, key: Key, algorithm: KeyAlgorithm | None) -> StoredKey:
        """A key that the signer has named. What cannot be one of ours is refused."""
        name = printable(key.name, 100)
        try:
            if not _NAME.fullmatch(key.name):
                raise UnusableKey("its name is none")
            public = load_der_public_key(key.public_key)
            if not is_certifiable(public) or spki_der(public) != key.public_key:
                raise UnusableKey("its public key is none that the mesh uses")
            reference = KeyReference(f"{SCHEME}{key.name}", public)
            found = reference.algorithm
        except _UNREADABLE as error:
            raise KeyStoreRefused(
                f"{self.uri} has the key {name}, which cannot be used: {printable(str(error), 200)}"
            ) from None
        if algorithm is not None and found is not algorithm:
            raise KeyStoreRefused(
                f"{self.uri} was asked for a key {algorithm}, and made {name}, which is {found}: it does not keep to "
                "the protocol (docs/SIGNER.md)"
            )
        return self.key(reference)


def open_store(uri: str, ground: StoreGround) -> SignerStore:
    """The signer that a URI names. Raises :class:`~twisted_mesh.signer.address.BadSigner`."""
    return SignerStore(SignerAddress.parse(uri), ground)


def _name(reference: KeyReference) -> str:
    return reference.uri.removeprefix(SCHEME)


def _purpose(label: str) -> KeyPurpose:
    """What a key is for whose label is ``mesh.local root-1``; what says nothing else is an issuing CA's."""
    word = label.rpartition(" ")[2].partition("-")[0]
    return KeyPurpose(word) if word in list(KeyPurpose) else KeyPurpose.ISSUING


def _spoken(problem: Problem, begin: str) -> str:
    text = f"{begin}{problem.detail}"
    if problem.rule:
        text = f"{text} (rule {problem.rule})"
    return f"{text}; {problem.remedy}" if problem.remedy else text
