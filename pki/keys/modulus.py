"""RSA moduli that are factored easily, or that no good generator makes: Boulder's checks, and one of badkeys'."""

import math
import re
from collections.abc import Iterator

_PRIMES = tuple(n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1)))
#: The product of the primes below 752, as Boulder's goodkey checks them: one gcd finds any factor.
_SMALL_PRIMES = math.prod(_PRIMES)
#: As Boulder: BR section 6.1.1.3 wants a hundred.
_FERMAT_ROUNDS = 110
#: What squares are modulo 16, and modulo a product of small primes: of a hundred numbers two may be squares by both.
_MODULUS = 9 * 5 * 7 * 11
_SQUARES_OF_16 = frozenset({0, 1, 4, 9})
_SQUARES = frozenset(n * n % _MODULUS for n in range(_MODULUS))
#: One byte sixteen times: of a random modulus one in 2**111 has that.
_PATTERN = re.compile(rb"(.)\1{15}", re.DOTALL)
INFINEONS = "the RSA key was made by a chip of Infineon's (ROCA, CVE-2017-15361): its modulus can be factored"
#: The generator of the subgroup that Infineon's library took its primes from.
_GENERATOR = 65537


def faults(n: int) -> Iterator[str]:
    """Why nobody may have a key of this modulus, a sentence each. The first that is found spares the dearer ones."""
    if math.gcd(n, _SMALL_PRIMES) != 1:
        yield "the RSA modulus has a small prime factor"
    elif _PATTERN.search(n.to_bytes((n.bit_length() + 7) // 8, "big")):
        yield "the RSA modulus repeats one byte sixteen times: it was not made of random primes"
    elif _close_primes(n):
        yield "the RSA modulus is a product of two close primes and is factored easily"


def _close_primes(n: int) -> bool:
    """Fermat's factorization: finds n = p * q at once when p and q are close."""
    a = math.isqrt(n)
    if a * a < n:
        a += 1
    square = a * a - n
    for _ in range(_FERMAT_ROUNDS):
        # A root takes a hundred times as long as these.
        may_be = square & 15 in _SQUARES_OF_16 and square % _MODULUS in _SQUARES
        if may_be and math.isqrt(square) ** 2 == square:
            return True
        square += 2 * a + 1
        a += 1
    return False


def _logarithms(p: int) -> dict[int, int]:
    """By each power of the generator modulo ``p`` its exponent."""
    logarithms: dict[int, int] = {}
    power = 1
    while power not in logarithms:
        logarithms[power] = len(logarithms)
        power = power * _GENERATOR % p
    return logarithms


#: The odd primes up to 167, which divide Infineon's constant whatever the size of the key: the most telling ones first.
_INFINEON = sorted(
    ((p, _logarithms(p)) for p in _PRIMES if 2 < p <= 167),
    key=lambda each: len(each[1]) / (each[0] - 1),
)
_INFINEON_PRODUCT = math.prod(p for p, _ in _INFINEON)


def is_infineons(n: int) -> bool:
    """Whether ``n`` is a power of 65537 modulo the product of the primes up to 167, as both its primes were.

    M. Nemec and others, "The Return of Coppersmith's Attack", section 3.1. The exponents that it has modulo each prime
    must also agree with each other: a random modulus passes for one of Infineon's once in 2**150.
    """
    rest = n % _INFINEON_PRODUCT
    exponent, modulus = 0, 1
    for p, logarithms in _INFINEON:
        at = logarithms.get(rest % p)
        if at is None:
            return False
        order = len(logarithms)
        shared = math.gcd(modulus, order)
        step, odd = divmod(at - exponent, shared)
        if odd:
            return False
        # The Chinese remainder: the one exponent that is both.
        exponent += modulus * (
            step * pow(modulus // shared, -1, order // shared) % (order // shared)
        )
        modulus *= order // shared
    return True
