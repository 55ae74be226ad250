"""When cycles are looked for: not while a program is loaded, which makes many objects and next to no garbage."""

import gc

#: Objects that are made before the next look.
_SELDOM = 1_000_000
USUAL, *_LATER = gc.get_threshold()
#: The same, of a program whose objects mostly live for as long as a commit takes, and then go by themselves.
OF_A_CA = 10_000


def seldom() -> None:
    """From now on a look is rare. Of a program that ends soon there may be none."""
    gc.set_threshold(_SELDOM)


def as_usual(made: int = USUAL) -> None:
    """The program is loaded, and goes on; after so many objects more there is a look."""
    gc.set_threshold(made, *_LATER)


def settle() -> None:
    """What is there now stays: a look need not go over it again and again."""
    gc.collect()
    gc.freeze()
