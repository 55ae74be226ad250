"""When cycles are looked for: not while a program is loaded, which makes many objects and next to no garbage."""

import gc

#: Objects that are made before the next look.
_SELDOM = 100_000
_USUAL = gc.get_threshold()


def seldom() -> None:
    """From now on a look is rare. Of a program that ends soon there may be none."""
    gc.set_threshold(_SELDOM)


def as_usual() -> None:
    """The program is loaded, and goes on."""
    gc.set_threshold(*_USUAL)


def settle() -> None:
    """What is there now stays: a look need not go over it again and again."""
    gc.collect()
    gc.freeze()
