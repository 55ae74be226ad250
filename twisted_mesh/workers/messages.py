"""What a parent and its workers say to each other: one JSON object a message, and none that has room for a key.

A member that is not known is passed over. Each message names its kind.
"""

from msgspec import Struct

from pki.errors import Problem

#: Bytes of one message to a parent: a page of metrics is the longest.
MOST_TO_PARENT = 8 * 1024 * 1024
#: Bytes of one message to a worker: what a CA answers at most, in base64.
MOST_TO_WORKER = 48 * 1024 * 1024
#: The descriptor by which a worker speaks with its parent; the sockets that it serves come after it.
CHANNEL = 3
#: Seconds between two signs of life of a worker.
SIGN_OF_LIFE = 2.0


class _Message(Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """One of them."""


# From a worker


class Asked(_Message, frozen=True, tag="asked"):
    """A question to the CA, which the parent is to ask."""

    number: int
    """Of the question; its answer has the same."""
    method: str
    path: str
    body: bytes | None = None
    idempotency_key: str = ""
    wait: int = 0
    """Seconds for which the CA may wait until there is something to say."""


class Told(_Message, frozen=True, tag="told"):
    """The page that a parent asked for."""

    number: int
    status: int
    body: bytes


class Listening(_Message, frozen=True, tag="listening"):
    """It has a certificate of its own, and takes connections."""


class Alive(_Message, frozen=True, tag="alive"):
    """A sign of life."""


FromWorker = Asked | Told | Listening | Alive


# From a parent


class Assignment(_Message, frozen=True, tag="assignment"):
    """The first message: which service a worker is."""

    program: str
    number: int
    """Of the worker, from 1 on."""
    count: int
    """How many there are."""
    parent: int
    """The parent's process."""
    words: list[str]
    """The options of the service, without those that are the parent's alone."""
    texts: dict[str, bytes]
    """By option, what the files hold that the parent has read."""
    sockets: int
    """How many are inherited, beginning with the descriptor after the channel's."""
    ca: str
    """Where the CA is that the parent asks, for people; empty where each worker has its identity from elsewhere."""


class Answered(_Message, frozen=True, tag="answered"):
    """What the CA said."""

    number: int
    status: int
    """200; that of a refusal; or 0 where there was no answer of a CA."""
    body: bytes = b""
    problems: list[Problem] = []
    """Of a refusal."""
    clocks: str = ""
    """How the CA's clock is to ours, for people."""


class Question(_Message, frozen=True, tag="question"):
    """A page of the worker's is wanted: ``/metrics``, say."""

    number: int
    path: str


class Reread(_Message, frozen=True, tag="reread"):
    """Files were read again: these texts count now."""

    texts: dict[str, bytes]
    level: str
    """Of the log."""


class Stop(_Message, frozen=True, tag="stop"):
    """Stop gracefully."""

    at_once: bool = False
    """Or cut what is under way."""


FromParent = Assignment | Answered | Question | Reread | Stop
