"""Keys whose private half everybody knows: those of the examples that people copy, and those that are guessed first."""

from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256

#: So much of the digest is compared, as badkeys does.
_LENGTH = 15
#: Private keys of an elliptic curve up to this, and as far below the group's order, are tried by whoever tries any.
_SMALL = 256
#: By what :func:`digest` says of a key where its private half is printed.
_EXAMPLES: Mapping[bytes, str] = {
    bytes.fromhex(told): where
    for told, where in {
        "5bb8306b27cc6a68c88776fd8f2acd": "RFC 4754 section 8.1",
        "ae5583ef3de977067255d679e1faf9": "RFC 4754 section 8.2",
        "8ff926a54df85c20d819d91800076a": "RFC 5903 section 8.1",
        "063ba295e518a7c52a82a971e895ba": "RFC 5903 section 8.1",
        "57084c192fdc91b67e6e989a25e48f": "RFC 5903 section 8.2",
        "88a8d211ba4abc6badfa535bc95d4c": "RFC 5903 section 8.2",
        "10985c901b9bc6c098258f3ae43e4f": "RFC 6979 appendix A.2.5",
        "cab8860f3b4d077859313d2a4ef4fe": "RFC 6979 appendix A.2.6",
        "26d6872d476b20e7eaa7cc894dcbc0": "RFC 7515 appendix A.2",
        "c4a8d76ecf5f712a6f98052d967a15": "RFC 7515 appendix A.3",
        "fa0823c601e01670320f579ad4c5c4": "RFC 7517 appendix A.2",
        "cfd9828d5c4be180a7f4eb8b337257": "RFC 7517 appendix A.2",
        "25fc70dd8135cce5acb1323ed853d6": "RFC 7518 appendix C",
        "3af43445a9a6fbd00e292027d08965": "RFC 7518 appendix C",
        "39f713d0a644253f04529421b9f51b": "RFC 8032 section 7.1",
        "5f9b247e2a654719f198e4f241d6b0": "RFC 8032 section 7.1",
        "21fe31dfa154a261626bf854046fd2": "RFC 8032 section 7.1",
        "dac073e0123bdea59dd9b3bda9cf60": "RFC 8032 section 7.1",
        "91384c411e5af29648f17f922b4026": "RFC 8032 section 7.1",
        "e744c0791320c3285460eddb523f14": "RFC 8410 section 10.3",
        "9af6159203e8509e0550defa50b312": "RFC 9421 appendix B.1.1",
        "fa2bc28a552a8316d284796d1b00dc": "RFC 9421 appendix B.1.3",
        "b16c2d1bead1262639764fdb0ee4d3": "RFC 9421 appendix B.1.4",
        "336ab2ef332415f3ec691a96a4dfd2": "RFC 9500 section 2.3",
        "f37f4a83bbce8e3e8118ca38541b39": "RFC 9500 section 2.3",
    }.items()
}


def digest(number: bytes) -> bytes:
    """What badkeys' lists tell a key by: of :meth:`pki.keys.kind.KeyKind.number`, however the key is written."""
    return sha256(number).digest()[:_LENGTH]


def printed(number: bytes) -> Iterator[str]:
    """Where the private half of that key is printed, as a sentence."""
    where = _EXAMPLES.get(digest(number))
    if where is not None:
        yield f"this is the example key of {where}: its private half is printed there"


@cache
def small_multiples(prime: int, x: int, y: int) -> frozenset[int]:
    """The x coordinates of the first multiples of the point (x, y), on a curve y² = x³ - 3x + b modulo ``prime``.

    Those of as many private keys just below the group's order are the same ones.
    """
    found = {x}
    at_x, at_y = x, y
    for _ in range(_SMALL - 1):
        if (at_x, at_y) == (x, y):
            slope = (3 * x * x - 3) * pow(2 * y, -1, prime)
        else:
            slope = (at_y - y) * pow(at_x - x, -1, prime)
        next_x = (slope * slope - at_x - x) % prime
        at_x, at_y = next_x, (slope * (at_x - next_x) - at_y) % prime
        found.add(at_x)
    return frozenset(found)
