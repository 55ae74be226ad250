"""Every code that a problem can have, with what it means and what to do: the one catalogue.

It is long because it is a table, read by its rows; docs/COMMANDS.md prints it, and so does
``pki-inspect explain``. Codes that only :mod:`twisted_mesh` raises stand here too.
"""

from enum import StrEnum
from typing import Self


class Code(StrEnum):
    """A stable name, the same in logs, metrics, JSON and on the command line.

    A member is its text, whatever writes it: ``f"{Code.EXPIRED}" == "expired"``. A code, once given
    out, is neither renamed nor given another meaning.
    """

    meaning: str
    """What is wrong, in a line."""
    remedy: str
    """What to do about it, where the problem itself does not say it more exactly."""

    def __new__(cls, value: str, meaning: str, remedy: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.remedy = meaning, remedy
        return member

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The code of that name; None for one that there is not, or not yet in this version."""
        return next((code for code in cls if code == text), None)

    # Of certificates and peers.
    NO_CERTIFICATE = ("no-certificate", "the peer presented none", "present an SVID of this mesh")
    EXPIRED = (
        "expired",
        "the certificate is not valid any more; the message has both clocks",
        "request a fresh certificate, and compare the two machines' clocks",
    )
    NOT_YET_VALID = (
        "not-yet-valid",
        "the certificate is not valid yet; the message has both clocks",
        "compare the two machines' clocks",
    )
    REVOKED = (
        "revoked",
        "the certificate's CA has revoked it; the message has the time and the reason",
        "ask an administrator why; if it was in error, request a new certificate",
    )
    STALE_REVOCATION = (
        "stale-revocation",
        "what the refusing side knows of revocations, from its CA or a list of `--crl`, is older than it may be, "
        "or was never read; nothing is wrong with the peer",
        "see that the CA and each CRL can be reached from there; it ends by itself once they are",
    )
    UNKNOWN_REVOCATION = (
        "unknown-revocation",
        "no CRL or OCSP response that was given says whether the certificate is revoked",
        "give a CRL, or a response, of its issuer",
    )
    UNKNOWN_AUTHORITY = (
        "unknown-authority",
        "the chain does not lead to a root of its trust domain",
        "use a certificate of this mesh; where a root was replaced, fetch the bundle anew",
    )
    INCOMPLETE_CHAIN = (
        "incomplete-chain",
        "the peer did not send its issuing CA; or the CA did not send its root, and nothing but a fingerprint is "
        "known of it",
        "send the intermediates along with the leaf",
    )
    ISSUER_MISMATCH = (
        "issuer-mismatch",
        "the certificate's authority key identifier names another key, or another certificate, than the CA has that "
        "signed it",
        "have the certificate issued anew; the identifier is copied from the CA's own certificate",
    )
    BAD_SIGNATURE = (
        "bad-signature",
        "the issuer's certificate is there, and the signature is not of its key",
        "fetch or issue the certificate anew: it was damaged, or comes from somebody else",
    )
    PROFILE_VIOLATION = (
        "profile-violation",
        "the certificate breaks a rule of RFC 5280 that no CA of a mesh breaks: version, serial number, curve, "
        "identifiers, or an extension that would have to be critical",
        "have it issued anew, by a CA that keeps to RFC 5280 section 4",
    )
    WRONG_FINGERPRINT = (
        "wrong-fingerprint",
        "the root that the CA sent is not the one whose fingerprint was given; nothing of ours was sent",
        "compare `--ca-fingerprint` with what the CA prints at its start, and check `--ca-url`",
    )
    PIN_MISMATCH = (
        "pin-mismatch",
        "the certificate is good, and none of the CA keys that vouch for it is one that is pinned for this peer "
        "(`--peer-pin`)",
        "compare with the keys that its CA announces (`mesh-ctl ca root status`): where the CA has moved, pin the new "
        "key; else somebody else's CA vouches for it",
    )
    PINS_WITHDRAWN = (
        "pins-withdrawn",
        "every pin for this peer is of a key that its CA has withdrawn, so nobody can meet them",
        "ask whoever runs the CA which keys count now, and pin these; `--peer-pin-mode report`, said on that machine, "
        "lets it through meanwhile",
    )
    BAD_PIN = (
        "bad-pin",
        "a pin, or what is said of pins, cannot be used",
        "write `sha256/BASE64` of a root's or issuing CA's key, as `pki-inspect fingerprint` prints it; two or more "
        "for each pattern",
    )
    NOT_A_ROOT = (
        "not-a-root",
        "the certificate with that fingerprint is an issuing CA, not signed by itself",
        "give the root's fingerprint, which the CA prints at its start",
    )
    UNKNOWN_TRUST_DOMAIN = (
        "unknown-trust-domain",
        "no bundle is held for the trust domain that the certificate names",
        "check the trust domain on both sides",
    )
    NOT_AN_SVID = (
        "not-an-svid",
        "the certificate, or the ID, breaks a rule of X.509-SVID: no URI name or several, no path, a CA certificate",
        "request a certificate from a CA of the mesh",
    )
    NOT_A_SPIFFE_ID = (
        "not-a-spiffe-id",
        "a name is not a SPIFFE ID",
        "write it as `spiffe://TRUST-DOMAIN/service/NAME`",
    )
    WRONG_USAGE = (
        "wrong-usage",
        "the certificate's key usage or extended key usage does not allow this",
        "present an SVID with clientAuth and serverAuth",
    )
    NOT_A_CA = (
        "not-a-ca",
        "an issuer in the chain is no CA, or may not sign certificates",
        "look at the chain with `pki-inspect verify`: that issuer must not be relied on",
    )
    PATH_TOO_LONG = (
        "path-too-long",
        "an issuer in the chain may not have so many CAs below it",
        "have the certificate issued by a CA nearer to the root",
    )
    WEAK_KEY = ("weak-key", "a key is not good enough", "make a new key, `ec-p256` for one")
    WEAK_SIGNATURE = (
        "weak-signature",
        "what is signed (certificate, CSR, CRL or OCSP answer) is signed with a hash that is not good enough",
        "have it signed with SHA-256 or better",
    )
    UNKNOWN_EXTENSION = (
        "unknown-extension",
        "a critical extension (of a certificate, a CRL or its entry, an OCSP answer) that nobody here understands",
        "have it issued without that extension",
    )
    MALFORMED = (
        "malformed",
        "it cannot be decoded, or is not what it is said to be; or too many certificates were sent",
        "look at it with `pki-inspect show`, and make it anew",
    )
    BAD_CERTIFICATE = (
        "bad-certificate",
        "the certificate is refused by OpenSSL, or by the peer, without a more exact reason",
        "look in the log of whoever refused; look at the certificate with `pki-inspect verify`",
    )
    NAME_MISMATCH = (
        "name-mismatch",
        "the certificate is not valid for the host name or ID that was asked for",
        "call it by a name in its certificate, or have that name put in (`--dns`, `--ip`)",
    )
    NOT_AUTHORIZED = (
        "not-authorized",
        "a good identity that is not among those allowed; or no entry buys what was asked for",
        "add it to `--allow` where it is to be let in, or call with `--server-id`; for a certificate make an entry; "
        "`mesh-ctl why` says what is missing",
    )
    # Of federated trust domains.
    BAD_FEDERATION = (
        "bad-federation",
        "what is said of a trust domain that is to be followed cannot be used",
        "do what the message says; the peer's operator knows the URL, the profile and the endpoint's SPIFFE ID",
    )
    OLDER_BUNDLE = (
        "older-bundle",
        "the sequence number of a federated bundle went back; the last good one is still believed",
        "ask the peer's operator whether its CA was restored; if so, have the older one accepted once",
    )
    ALTERED_BUNDLE = (
        "altered-bundle",
        "a federated bundle has other keys than before and the same sequence number; the last good one is still "
        "believed",
        "ask the peer's operator what has happened; then have it accepted once",
    )
    FOREIGN_ROOT = (
        "foreign-root",
        "a federated bundle has the root of another trust domain",
        "check the URL, and ask the peer's operator which roots are its own",
    )
    BAD_BUNDLE_KEY = (
        "bad-bundle-key",
        "a key in a federated bundle cannot be used; the rest of the bundle is believed",
        "tell the peer's operator; without that key what was issued under it is refused",
    )
    STALE_BUNDLE = (
        "stale-bundle",
        "a federated bundle has not been had from its endpoint for longer than it may be believed",
        "see that the endpoint can be reached; the log says what goes wrong",
    )
    # Of CRLs.
    BAD_CRL = (
        "bad-crl",
        "the CRL cannot be relied on; `problems` have each reason",
        "fetch the current list from its issuer",
    )
    CRL_OTHER_ISSUER = (
        "crl-other-issuer",
        "the CRL is another CA's",
        "give the CRL of the CA that issued the certificate",
    )
    CRL_BAD_SIGNATURE = (
        "crl-bad-signature",
        "the CRL is not signed by that CA's key",
        "fetch it anew: it was changed, or comes from somebody else",
    )
    NOT_A_CRL_ISSUER = (
        "not-a-crl-issuer",
        "the CA's key usage does not allow it to sign CRLs",
        "have its CRLs issued by a CA that may (cRLSign)",
    )
    CRL_STALE = (
        "crl-stale",
        "the CRL's next update is over, or it names none; at the CA: one cannot be made, or the root's key is needed "
        "for the root's own",
        "fetch the current one; at the CA, do what the message says",
    )
    CRL_NOT_YET_VALID = (
        "crl-not-yet-valid",
        "the CRL is from the future, by more than a minute",
        "compare the two machines' clocks",
    )
    CRL_ROLLED_BACK = (
        "crl-rolled-back",
        "the CRL is older than one that was seen before",
        "fetch the current one; if the issuer really has begun anew, remove the number kept in `crls`",
    )
    CRL_DELTA = ("crl-delta", "the CRL lists changes to another one only", "give the complete CRL")
    CRL_PARTIAL = (
        "crl-partial",
        "the CRL is not the whole list of that CA's certificates, or lists others' too",
        "give the complete CRL of that CA",
    )
    # Of OCSP answers.
    BAD_OCSP_ANSWER = (
        "bad-ocsp-answer",
        "the OCSP answer cannot be relied on; `problems` have each reason",
        "ask again; if it stays so, look at the responder",
    )
    OCSP_OTHER_CERTIFICATE = (
        "ocsp-other-certificate",
        "the OCSP answer is about other certificates",
        "ask about this certificate, by the issuer that signed it",
    )
    OCSP_UNSIGNED = (
        "ocsp-unsigned",
        "the responder that the OCSP answer names has not signed it",
        "ask again: it was changed, or comes from somebody else",
    )
    OCSP_UNAUTHORIZED_RESPONDER = (
        "ocsp-unauthorized-responder",
        "the responder is neither the issuer nor a delegate of it that is valid now",
        "ask the issuer's own responder; renew the delegate's certificate",
    )
    OCSP_STALE = (
        "ocsp-stale",
        "the OCSP answer's next update is over, or it names none",
        "ask for a fresh answer, and compare the two machines' clocks",
    )
    OCSP_NOT_YET_VALID = (
        "ocsp-not-yet-valid",
        "the OCSP answer is from the future, by more than a minute",
        "compare the two machines' clocks",
    )
    OCSP_NONCE = (
        "ocsp-nonce",
        "the OCSP answer is not the one to this request",
        "ask a responder that repeats the nonce, without a cache between",
    )
    OCSP_UNKNOWN = (
        "ocsp-unknown",
        "the responder does not know the certificate",
        "find out who issued it, and ask the responder of that CA",
    )
    OCSP_REFUSED = (
        "ocsp-refused",
        "the responder gives no answer",
        "ask again later; its log has the reason",
    )
    OCSP_UNREACHABLE = (
        "ocsp-unreachable",
        "the responder of `--ocsp` gave no answer in time, or there is none to ask",
        "check its URL, and whether it runs; with `--on-stale grace` the peer is let in meanwhile",
    )
    NOT_SERVED = (
        "not-served",
        "a URL answers, and has not what was asked for",
        "check the URL",
    )
    STAPLE_MISSING = (
        "staple-missing",
        "a server staples no OCSP answer, and `--require-staple` demands one",
        "look in its log why its CA gives it none, or call it without that option",
    )
    STAPLE_REFUSED = (
        "staple-refused",
        "the other side does not take what we staple, or misses a staple: its log says which",
        "look whether our certificate is revoked, and whether our CA answers",
    )
    UNUSABLE_EVIDENCE = (
        "unusable-evidence",
        "a CRL or OCSP answer in a file that was given to `pki-inspect` cannot be relied on at that time",
        "give one that holds at that time, of the certificate's issuer",
    )
    # Of connections.
    PROTOCOL_VERSION = (
        "protocol-version",
        "no version of TLS in common",
        "the mesh speaks TLS 1.3 only: update the other side",
    )
    HANDSHAKE_FAILURE = (
        "handshake-failure",
        "no cipher, group or signature in common",
        "the mesh speaks TLS 1.3 only: update the other side",
    )
    CLASSICAL_KEY_EXCHANGE = (
        "classical-key-exchange",
        "keys are exchanged by a group that a quantum computer breaks, or that is not known, and `--require-pq` wants "
        "a hybrid one",
        "have the other side take X25519MLKEM768, SecP256r1MLKEM768 or SecP384r1MLKEM1024: OpenSSL from 3.5 on does",
    )
    NOT_TLS = ("not-tls", "the other side does not speak TLS", "use `https://` on this port")
    NOT_HTTP = (
        "not-http",
        "the other side speaks TLS and no HTTP inside it, or TLS where plain HTTP is meant",
        "check the address and the port, and whether https:// or http:// is written",
    )
    HANDSHAKE_TIMEOUT = (
        "handshake-timeout",
        "the handshake was not done within 10 s",
        "look at the network, or at the peer",
    )
    HANDSHAKE_TOO_LARGE = (
        "handshake-too-large",
        "the peer had sent more than 64 KiB and its handshake was not done",
        "present the chain only; look at the peer if it is none of yours",
    )
    HANDSHAKE_PUT_OFF = (
        "handshake-put-off",
        "handshakes from this address keep failing and have used up their share of time; this one waited in vain",
        "look in the log what fails from there, and stop it",
    )
    TOO_MANY_CONNECTIONS = (
        "too-many-connections",
        "this peer has proved who it is, and has as many connections as one peer may have",
        "look why it opens so many",
    )
    INTERRUPTED = (
        "interrupted",
        "the other side closed the connection, or it broke",
        "look in the other side's log",
    )
    TLS_ERROR = (
        "tls-error",
        "the connection broke, for a reason that only OpenSSL's words tell",
        "look in the other side's log",
    )
    UNREACHABLE = (
        "unreachable",
        "nobody listens, the name is unknown, or no answer came in time",
        "the message says which: start it where nobody listens, else check the address and the network",
    )
    REFUSED_BY_PEER = (
        "refused-by-peer",
        "an alert that says no more than no",
        "the reason is in the other side's log",
    )
    CA_REFUSED = (
        "ca-refused",
        "the CA said no without a problem document, or with a code that this version does not know, which then "
        "begins the message",
        "look in the CA's log; if it is of a newer version, update this side",
    )
    PROCESS_GONE = (
        "process-gone",
        "the process at the other end, or with that PID, has exited",
        "ask again from a process that waits for the answer",
    )
    PROCESS_UNREADABLE = (
        "process-unreadable",
        "the process at the other end, or with that PID, may not be looked at, or not from here",
        "run the CA in the same PID namespace and with the right to read `/proc`",
    )
    FOREIGN_CA = (
        "foreign-ca",
        "the directory of the CA's socket, or the process at it, is of a user who is not known to be the CA's",
        "if it is the CA's all the same, name that user with `--ca-user`",
    )
    # Of evidence of platforms, and of rules.
    UNKNOWN_ATTESTATION = (
        "unknown-attestation",
        "the CA takes no evidence of that kind",
        "use a kind that it names, or configure that one: `mesh-ca --attestors`",
    )
    BAD_EVIDENCE = (
        "bad-evidence",
        "evidence of a platform that proves nothing: its signature, issuer, audience, algorithm or claims are not as "
        "the CA wants them",
        "do what the message says: it names the rule",
    )
    EVIDENCE_EXPIRED = (
        "evidence-expired",
        "evidence of a platform that is over, or whose time has not come",
        "fetch it anew, and compare the clocks of the two machines",
    )
    NO_EVIDENCE = (
        "no-evidence",
        "the platform gave an endpoint nothing that it could show to the CA",
        "look at what the message names: the file, the variable or the metadata service of `--attest`",
    )
    ALREADY_ATTESTED = (
        "already-attested",
        "evidence that counts once has bought a certificate for another key",
        "if that was this machine before it was set up anew, `mesh-ctl agent evict` what the message names; if not, "
        "somebody else has used it",
    )
    ATTESTOR_UNAVAILABLE = (
        "attestor-unavailable",
        "whoever says whether the evidence is good does not answer: an API server, or the keys of an issuer",
        "it is tried again by itself; see that the CA reaches what the message names",
    )
    REATTEST_REQUIRED = (
        "reattest-required",
        "the entry wants evidence of the platform at each renewal, and an SVID alone was shown",
        "start the service with `--attest`; it asks again with fresh evidence then",
    )
    BAD_ATTESTORS = (
        "bad-attestors",
        "the file of `--attestors` cannot be used",
        "do what the message says: it names the table; what was read before stays in force",
    )
    POLICY_DENIED = (
        "policy-denied",
        "a rule of the policy says no, or none says yes; the message names it",
        "see what it decided on: `mesh-ctl policy explain`",
    )
    POLICY_UNAVAILABLE = (
        "policy-unavailable",
        "a rule could not be evaluated, or whoever decides besides did not answer: nothing is issued",
        "look in the log which rule it is; `mesh-ctl policy check` finds most mistakes",
    )
    BAD_POLICY = (
        "bad-policy",
        "a policy is not used, because something is wrong with a rule of it",
        "mend what the message names; `mesh-ctl policy check` has all of it, with file, rule and place",
    )
    # Of what the CA's API is asked.
    NO_PROOF = (
        "no-proof",
        "the caller has not proved who it is, or its join token is unknown, spent, expired or revoked",
        "ask over the socket or with an SVID, or have a new token made: `mesh-ctl token create`",
    )
    NOT_FOUND = (
        "not-found",
        "there is nothing of that name, number or path",
        "list what there is, and check the spelling",
    )
    METHOD_NOT_ALLOWED = (
        "method-not-allowed",
        "the path is right, and the method is not; the header Allow has those that are",
        "use one of the methods that the reference has for this path",
    )
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported-media-type",
        "the body's Content-Type is not one that the path takes",
        "send it as the reference says, mostly `application/json`",
    )
    CROSS_ORIGIN = (
        "cross-origin",
        "a web page of another place sent the request through somebody's browser",
        "ask from a program, not from a page",
    )
    CONFLICT = (
        "conflict",
        "what is on record stands against it: it exists already, has changed, or a token has bought another "
        "certificate",
        "look at what is on record, and decide anew",
    )
    ENTRY_IN_FILE = (
        "entry-in-file",
        "the entry comes from the file of `--entries`, and is changed only there",
        "edit that file, and send the CA SIGHUP",
    )
    NOT_BY_TOKEN = (
        "not-by-token",
        "no token can be made for this entry: it is not bought by one alone",
        "name an entry with a `token:` selector, or none, and say which ID is wanted",
    )
    RATE_LIMITED = (
        "rate-limited",
        "this caller asks too often; Retry-After says when to come back",
        "ask less often, or raise `--rate-limit`",
    )
    QUOTA = (
        "quota",
        "an ID, or a registration entry, has had as many certificates as it may have an hour; Retry-After says when "
        "there are more",
        "look what asks so often, or raise `--quota`",
    )
    TOO_LARGE = (
        "too-large",
        "the request's body is larger than the message allows",
        "send less at once",
    )
    BUSY = (
        "busy",
        "too much is under way; Retry-After says when to come back",
        "ask again later",
    )
    REFUSED = (
        "refused",
        "it breaks rules; `problems` have each reason",
        "see to each of them, and ask again",
    )
    NOT_PUBLISHED = (
        "not-published",
        "the certificate is revoked, and the CRL that says so could not be made",
        "ask again, which waits for it again; the CA's log says why",
    )
    STORE_UNAVAILABLE = (
        "store-unavailable",
        "the record cannot be read or written, or its disk is full; nothing of the command has been kept",
        "free some space, or look in the CA's log; then ask again",
    )
    ISSUER_EXPIRED = (
        "issuer-expired",
        "the CA cannot issue now: its own certificate is not valid, or ends too soon",
        "check the CA's clock; bring the root's key back, so that a new issuing CA can be made",
    )
    CLOCK_BEHIND = (
        "clock-behind",
        "the CA's clock is behind its own record by so much that what it issues would have ended already",
        "set the CA's clock right; it issues again by itself. If it is right, start the CA with `--clock-is-right`",
    )
    SIGNING_FAILED = (
        "signing-failed",
        "the signer answered with something that is not a signature of its key",
        "look at where the key is kept",
    )
    NOT_SIGNABLE = (
        "not-signable",
        "what was sent to `mesh-signer` is nothing that it signs, or not written as we write it; a digest never is",
        "send all that is to be signed, as a CA of this version writes it",
    )
    SIGNING_REFUSED = (
        "signing-refused",
        "a rule of the policy of `mesh-signer` says no; the message names the rule (docs/SIGNER.md)",
        "do what the message says; where nobody asked for that, somebody else holds the CA's process: look into the "
        "signer's log",
    )
    BAD_SIGNING_POLICY = (
        "bad-signing-policy",
        "the file of `mesh-signer --policy` cannot be used",
        "mend what the message names",
    )
    SIGNER_STATE = (
        "signer-state",
        "what `mesh-signer` remembers is damaged, older than its log, or cannot be written; it signs nothing then",
        "do what the message says: a record that was put back by an older one is not gone on with",
    )
    NO_IDENTITY = (
        "no-identity",
        "the server has no valid certificate now, and lets nobody in",
        "its log says why its CA gives it none",
    )
    NO_WORKER = (
        "no-worker",
        "no worker of the service takes connections",
        "its log says why they have ended; they are started again by themselves",
    )
    INTERNAL = (
        "internal",
        "a bug here",
        "report it, with the traceback that is in the log",
    )
    FILES_BEHIND = (
        "files-behind",
        "an identity's files are not up to date, or whoever uses them could not be told",
        "do what the message says; it is tried again by itself",
    )
    # Of signing requests, in `problems` of a 422.
    WRONG_TRUST_DOMAIN = (
        "wrong-trust-domain",
        "the requested ID is of another trust domain",
        "ask for an ID of the CA's own trust domain",
    )
    RESERVED_ID = (
        "reserved-id",
        "the requested ID is one of the CA's own (`/mesh/…`)",
        "ask for `spiffe://TRUST-DOMAIN/service/NAME`",
    )
    WRONG_URI = (
        "wrong-uri",
        "the CSR names another URI than the requested ID",
        "make the CSR with the requested ID, or without a URI",
    )
    MALFORMED_DNS_NAME = (
        "malformed-dns-name",
        "a DNS name in the CSR is none",
        "write it in lower case, without a dot at its end",
    )
    UNSUPPORTED_NAME = (
        "unsupported-name",
        "the CSR has a name that is no URI, DNS name or IP address",
        "make the CSR without it",
    )
    TOO_MANY_NAMES = (
        "too-many-names",
        "the CSR has more than 64 names",
        "ask for fewer, or for several certificates",
    )
    FORBIDDEN_KEY = (
        "forbidden-key",
        "the key is a CA's own, or of a kind that this CA does not certify",
        "make a key of your own, of a kind that `mesh-ca --leaf-key` allows",
    )
    BLOCKED_KEY = (
        "blocked-key",
        "the key is blocked: it was revoked as compromised, an administrator has blocked it, or a list of "
        "`--blocked-keys` has it",
        "make a new key; `mesh-ctl key list` tells why",
    )
    NO_POSSESSION = (
        "no-possession",
        "the CSR's signature does not match its key",
        "sign the CSR with the key that it is about",
    )
    TTL_OUT_OF_RANGE = (
        "ttl-out-of-range",
        "the lifetime is under 1 s, or over the most that is allowed",
        "ask for one within the range that the message has, or for none",
    )
    LINT = (
        "lint",
        "what would have been signed breaks a rule: a bug here, with a 500",
        "report it",
    )
    # Of the audit log, as a witness, a proof and an examination tell them.
    LOG_ROLLED_BACK = (
        "log-rolled-back",
        "the log has fewer entries than were signed before",
        "find out who replaced the record; a restored backup is known by its act in the log",
    )
    LOG_FORKED = (
        "log-forked",
        "the log was signed with other content: one size with two roots, or no proof that leads from old to new",
        "keep both checkpoints: together they prove it; somebody has the CA's record or key",
    )
    LOG_REPLACED = (
        "log-replaced",
        "another log stands in the place of the one that was known",
        "if the CA was begun anew on purpose, remove the witness's file; else find out who did it",
    )
    LOG_CUT = (
        "log-cut",
        "entries are missing, or their text in between",
        "compare with a backup or an export to see what they said",
    )
    LOG_EDITED = (
        "log-edited",
        "an entry is not what was taken into the tree",
        "compare it with a backup or an export to see what it said",
    )
    LOG_REWRITTEN = (
        "log-rewritten",
        "entries and tree fit each other, and not what was signed",
        "compare with a backup or an export to see what was changed",
    )
    LOG_REORDERED = (
        "log-reordered",
        "an entry is out of its place",
        "compare with a backup or an export to see the order",
    )
    LOG_REPEATED = (
        "log-repeated",
        "an entry is there twice",
        "compare with a backup or an export to see which it was",
    )
    LOG_UNVOUCHED = (
        "log-unvouched",
        "the record has acts, and nothing that was signed of its log is left, here or in it",
        "find out who changed the record; restore a backup, or accept the log as it is",
    )
    RECORD_UNREVOKED = (
        "record-unrevoked",
        "the record does not say that something is revoked, and the log does",
        "revoke it again, and find out who changed the record",
    )
    RECORD_REVOKED = (
        "record-revoked",
        "the record says that a certificate is revoked, and the log does not",
        "find out who changed the record",
    )
    RECORD_UNSPENT = (
        "record-unspent",
        "the record lets a join token be spent that has bought a certificate by the log",
        "revoke the token, look what it has bought, and find out who changed the record",
    )
    RECORD_UNKNOWN = (
        "record-unknown",
        "the record has what the log does not say that it was made, or says that it was deleted",
        "delete or revoke it, look what it has bought, and find out who changed the record",
    )
    RECORD_MISSING = (
        "record-missing",
        "the record lacks what was made by the log, and nothing says that it is gone",
        "restore the last backup: what is not on record cannot be revoked",
    )
    RECORD_CHANGED = (
        "record-changed",
        "the record says something else of a certificate, an entry or a token than the log",
        "delete or revoke it and make it anew; find out who changed the record",
    )
    BAD_ENTRY = (
        "bad-entry",
        "an entry cannot be read, or is not written canonically",
        "compare it with a backup or an export to see what it said",
    )
    TIME_BACKWARDS = (
        "time-backwards",
        "an entry is dated over a minute before the one in front of it; proves nothing",
        "see whether the CA's clock was set back then",
    )
    BAD_PROOF = (
        "bad-proof",
        "a proof does not lead to the root",
        "fetch proof and checkpoint anew, of one log; if it stays so, the log is not what was signed",
    )
    BAD_CHECKPOINT = (
        "bad-checkpoint",
        "a checkpoint is damaged, or not signed by the log's key",
        "fetch it anew, and check that the key is this log's",
    )
    DAMAGED_TREE = (
        "damaged-tree",
        "the stored tree has fewer hashes than entries",
        "restore the record from a backup",
    )
    # Of JWT-SVIDs.
    BAD_JWT = (
        "bad-jwt",
        "the text is no JWT-SVID: its form, its header or a claim breaks the specification",
        "send the token whole, as the Workload API or the CA gave it",
    )
    JWT_EXPIRED = (
        "jwt-expired",
        "the token is not good any more; the message has both clocks",
        "request a new token, and compare the two machines' clocks",
    )
    JWT_NOT_YET_VALID = (
        "jwt-not-yet-valid",
        "the token is not good yet; the message has both clocks",
        "compare the two machines' clocks",
    )
    JWT_WRONG_AUDIENCE = (
        "jwt-wrong-audience",
        "the token is for somebody else",
        "request a token for the audience that the message names",
    )
    JWT_UNKNOWN_KEY = (
        "jwt-unknown-key",
        "no JWT key of that name is in the trust domain's bundle, or at the CA",
        "fetch the bundle anew; where the key was retired, request a new token",
    )
    JWT_BAD_SIGNATURE = (
        "jwt-bad-signature",
        "the token is not signed by the key that it names",
        "request a new token",
    )
    BAD_AUDIENCE = (
        "bad-audience",
        "no token can be made for that audience, or none is named",
        "name whom the token is for: one short name",
    )
    # Of options, entries and tokens.
    BAD_FINGERPRINT = (
        "bad-fingerprint",
        "the text is no SHA-256 fingerprint",
        "copy `sha256:HEX` from what the CA prints at its start",
    )
    UNKNOWN_SELECTOR = (
        "unknown-selector",
        "the text is no selector: its kind is unknown, or its value is none of that kind",
        "write one of the selectors in the table of registration",
    )
    BAD_TOKEN = (
        "bad-token",
        "the text is no join token: it is cut short, mistyped, or something else",
        "copy it whole from what `mesh-ctl token create` printed",
    )
    BAD_REGISTRATION = (
        "bad-registration",
        "an entry in the record is damaged",
        "delete it and make it anew; find out who changed the record",
    )
    # Of files and starts.
    START = ("start", "the service cannot start", "do what its one sentence says")
    STATE = (
        "state",
        "the state directory or a file in it cannot be used",
        "check its owner, its modes, and that there is space",
    )
    ALREADY_RUNNING = (
        "already-running",
        "another CA owns this state directory",
        "end that one, or give this one another `--state-dir`",
    )
    UNUSABLE_KEY = (
        "unusable-key",
        "a private key cannot be read",
        "check that the file is a key in PEM or DER, whole, and the passphrase if it is encrypted",
    )
    UNUSABLE_PASSPHRASE = (
        "unusable-passphrase",
        "a passphrase cannot be read, or not be used",
        "put it in a file of one line, 0600, of at most 1023 bytes",
    )
    BAD_BUNDLE = (
        "bad-bundle",
        "a bundle (SPIFFE's JWK set of roots) cannot be used",
        "fetch it anew from the CA",
    )
    UNPROVEN_BACKUP = (
        "unproven-backup",
        "the backup does not prove that it comes from the CA that it is said to be of",
        "name the root's `--fingerprint`, or use a backup that is signed",
    )
    BAD_BACKUP = (
        "bad-backup",
        "the file is no backup, is damaged, or is of a newer version",
        "take another backup; `mesh-ctl backup show` says whether one is good",
    )
    CREDENTIALS_DO_NOT_FIT = (
        "credentials-do-not-fit",
        "certificates and keys were not saved together",
        "take all of them from one backup",
    )
    # Of the issuing CA's life.
    SUCCESSION_WAITS = (
        "succession-waits",
        "a new issuing CA is due, and the root's key is not here",
        "bring the root's key back, 0600: it is picked up within a second",
    )
    ROOT_OUT_OF_TURN = (
        "root-out-of-turn",
        "the step does not follow from where the rotation of the root is",
        "see where it is, and what comes next, with mesh-ctl ca root status",
    )
    ROOT_UNACKNOWLEDGED = (
        "root-unacknowledged",
        "an endpoint or agent has not said yet that it believes the new root, or that it serves the chain to it",
        "see what keeps it from its CA; `--force` goes on without it, and its connections fail until it has heard",
    )
    ROOT_TOO_SOON = (
        "root-too-soon",
        "whoever only polls the bundle may not have seen the new root yet (SPIFFE federation, section 4.1)",
        "wait until the time that the message names; `--force` goes on at once",
    )
    ROOT_IN_USE = (
        "root-in-use",
        "valid certificates rest on the root that is to be retired, and on no other",
        "wait until they have ended or are renewed; `--force` goes on, and who has one joins anew, by a token",
    )
    ROOT_BREAKS_PIN = (
        "root-breaks-pin",
        "an endpoint has reported that it pins keys, and the next ones are not among them",
        "add the pins that mesh-ctl ca root status announces there first; `--force` goes on, and it refuses its peers",
    )
    ROOT_KEY_AWAY = (
        "root-key-away",
        "the key of a root that has to sign for this is not here",
        "bring that key back under the name that the message has, mode 0600: it is picked up within a second",
    )
    ROOT_ENDS = (
        "root-ends",
        "the root ends before long, has ended, or its rotation was left half-way",
        "see what comes next with mesh-ctl ca root status",
    )
    ISSUER_REVOKED = (
        "issuer-revoked",
        "the issuing CA is revoked and has no successor: nothing is signed",
        "bring the root's key back, 0600: a new issuing CA is made within a second",
    )
    NO_SUCCESSOR = (
        "no-successor",
        "the CA that issues cannot be revoked: the root's key is not here to make another",
        "bring the root's key back first, or say --force",
    )
    ALREADY_CERTIFIED = (
        "already-certified",
        "the offline root has certified that key before, or has revoked it",
        "use the certificate that it made then, or have the CA make another key: `mesh-ctl ca root csr --new-key`",
    )
    PROOF_FAILED = (
        "proof-failed",
        "a new issuing CA made a certificate that peers would refuse; it is not put to use",
        "report it; the issuing CA before goes on",
    )
    CANNOT_DETACH = (
        "cannot-detach",
        "the root's key stays where it is",
        "do what the message says first",
    )
    NO_ROOT_KEY = (
        "no-root-key",
        "the root's key is not here to be taken away",
        "nothing is to be done: it is kept somewhere else",
    )
    NO_COPY = (
        "no-copy",
        "the caller has not shown that it holds a copy of the root's key",
        "copy the key first, and name the copy",
    )
    # Of keys that are not in a file.
    KEY_STORE_AWAY = (
        "key-store-away",
        "the token or signer that has the key does not answer; nothing is signed meanwhile, and what is revoked is on "
        "record",
        "bring it back: the message says what is wrong with it; it is tried again by itself",
    )
    KEY_STORE_REFUSED = (
        "key-store-refused",
        "the token or signer that has the key says no: a wrong PIN, a key that is not there, a rule of its own",
        "do what the message says; a PIN is not tried again until it is another, or the CA gets a SIGHUP",
    )

    # Of the CA's health: its checks, as `mesh-ctl doctor` and `/readyz` have them.
    NOT_READY = (
        "not-ready",
        "a check of the CA fails; `problems` have which",
        "see to each of them",
    )
    UNHEALTHY_SIGNING = (
        "unhealthy-signing",
        "the issuing key does not sign",
        "look at where the key is kept",
    )
    UNHEALTHY_STORE = (
        "unhealthy-store",
        "the record cannot be written and read",
        "free some space, or look in the CA's log",
    )
    UNHEALTHY_CLOCK = (
        "unhealthy-clock",
        "the clock is behind the last act on record, or was moved since the start",
        "set this machine's clock right; where it was moved since the start, restart the CA then",
    )
    UNHEALTHY_ISSUER = (
        "unhealthy-issuer",
        "the issuing CA is not valid now, or its successor waits",
        "check the clock; bring the root's key back",
    )
    UNHEALTHY_KEYS = (
        "unhealthy-keys",
        "a token or signer that has keys of this CA does not sign",
        "do what the message says: `mesh-ctl ca keys` shows where each key is; it is tried again by itself",
    )
    UNHEALTHY_INTENTS = (
        "unhealthy-intents",
        "many signatures are under way or were cut short",
        "look at the store and at the key: one of them is slow",
    )
    UNHEALTHY_AUDIT = (
        "unhealthy-audit",
        "the audit log could not be signed, or is not what was signed before; acts are recorded all the same",
        "look in the CA's log; it is signed once that is mended, and a changed record is restored from a backup",
    )
    UNHEALTHY_CRLS = (
        "unhealthy-crls",
        "what is revoked cannot be published as it should be",
        "do what the message says; it is tried again each second",
    )
    UNHEALTHY_FEDERATION = (
        "unhealthy-federation",
        "a federated trust domain is not believed any more, or its bundle endpoint fails",
        "do what the message says: mesh-ctl federation show tells what is wrong with which",
    )
    UNHEALTHY_POLICY = (
        "unhealthy-policy",
        "the policy was withdrawn, or what is in its files now was not taken up",
        "mend it, then `mesh-ctl policy reload`; `mesh-ctl policy show` says what is in force",
    )
    UNHEALTHY_PLATFORMS = (
        "unhealthy-platforms",
        "evidence of a platform cannot be judged, or what is in the `--attestors` file now was not taken up",
        "see that the CA reaches the API server or issuer that is named; mend the file, and send the CA a SIGHUP",
    )
    UNHEALTHY_LOGS = (
        "unhealthy-logs",
        "logs of certificates are away or refuse what this CA issues, none is to spare, or endpoints demand more SCTs",
        "bring the logs back that are named; run a log more than `--ct-quorum`; raise that where endpoints demand more",
    )
    UNHEALTHY_DESCRIPTORS = (
        "unhealthy-descriptors",
        "few file descriptors are left",
        "raise the limit (`ulimit -n`, or `LimitNOFILE=`), or look who opens so many connections",
    )
    UNHEALTHY_DISK = (
        "unhealthy-disk",
        "little space is left where the state is, or it cannot be looked at",
        "free some space before it is used up",
    )
    UNHEALTHY_MEMORIES = (
        "unhealthy-memories",
        "a file that is remembered in cannot be written",
        "do what the message says; it is tried again by itself",
    )
    # Of certificate transparency: logs that are other processes, their receipts (SCTs), and who watches them.
    NO_SCT = (
        "no-sct",
        "the certificate has fewer good receipts (SCTs) of logs that are known here than are demanded; the message "
        "says of each why it does not count",
        "request a fresh certificate; where the log is a new one, put it into the list of logs. If the CA knows "
        "nothing of this certificate, somebody else signs with its key",
    )
    BAD_SCT = (
        "bad-sct",
        "a receipt of a log (SCT) is damaged, or is not for this certificate, or not signed by that log's key",
        "do not use the certificate; compare the log's key with the one in the list, and look what answers at its URL",
    )
    BAD_LOG_LIST = (
        "bad-log-list",
        "the list of logs cannot be used, or is not signed by the key that may sign it",
        "do what the message says; what was read before stays in force",
    )
    LOG_AWAY = (
        "log-away",
        "too few of the logs of certificates have answered with a receipt in time: nothing was issued",
        "ask again later; see that the CA reaches its logs, and what these say",
    )
    NOT_ACCEPTED_HERE = (
        "not-accepted-here",
        "the log takes no certificates from this caller, or not this chain",
        "do what the message says: the log's operator says whose certificates it takes, and under which roots",
    )
    LOG_READ_ONLY = (
        "log-read-only",
        "the log is retired: it can be read, and takes nothing any more",
        "have the CA submit to another log, and put that one into the list of logs",
    )
    CT_ENTRY_MISSING = (
        "ct-entry-missing",
        "a log has signed a receipt for a certificate, and the tree that it shows does not have it there",
        "keep the evidence, which anybody can verify; do not count on that log any more, and find out who has its key",
    )
    CT_LOG_FORKED = (
        "ct-log-forked",
        "a log of certificates has signed two trees that contradict each other",
        "keep both tree heads, which together prove it; do not count on that log any more",
    )
    CT_LOG_ROLLED_BACK = (
        "ct-log-rolled-back",
        "a log of certificates has fewer entries than it signed before",
        "keep both tree heads; do not count on that log before it has all its entries again",
    )
