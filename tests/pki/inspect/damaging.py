"""Ways to damage DER along its structure: what a blind change of bytes hardly ever does.

Certificates and their like are taken apart into trees, changed at one place, and put together again with
lengths that fit, so that a reader gets past the outermost element.
"""

from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from hypothesis import strategies as st

from pki.der import element, elements
from pki.errors import Malformed

_CONSTRUCTED = 0x20
_STRINGS = (0x04, 0x03)


@frozen
class Tree:
    """One element of DER. One with ``parts`` is made of them; another has ``content``."""

    tag: int
    content: bytes = b""
    parts: tuple["Tree", ...] | None = None
    prefix: bytes = b""
    """What comes before the parts: the count of unused bits of a BIT STRING."""

    def encode(self) -> bytes:
        """Its DER."""
        if self.parts is None:
            return element(self.tag, self.content)
        return element(self.tag, self.prefix + b"".join(part.encode() for part in self.parts))


def parse(der: bytes) -> Tree:
    """The tree of one element; strings that hold DER are taken apart too."""
    (outer,) = elements(der)
    return _tree(outer.tag, outer.content)


def _tree(tag: int, content: bytes) -> Tree:
    prefix = content[:1] if tag == 0x03 else b""
    if tag & _CONSTRUCTED or (tag in _STRINGS and content[len(prefix) :][:1] == b"\x30"):
        try:
            parts = tuple(_tree(e.tag, e.content) for e in elements(content[len(prefix) :]))
        except (Malformed, ValueError):
            return Tree(tag, content)
        return Tree(tag, b"", parts, prefix)
    return Tree(tag, content)


def places(tree: Tree) -> list[tuple[int, ...]]:
    """The way to each element, the outermost left out."""
    found: list[tuple[int, ...]] = []
    for number, part in enumerate(tree.parts or ()):
        found.append((number,))
        found += [(number, *rest) for rest in places(part)]
    return found


def changed(tree: Tree, way: Sequence[int], change: Callable[[Tree], Sequence[Tree]]) -> Tree:
    """``tree`` with what ``change`` makes of the element there in its place."""
    parts = list(tree.parts or ())
    head, *rest = way
    parts[head : head + 1] = [changed(parts[head], rest, change)] if rest else change(parts[head])
    return evolve(tree, parts=tuple(parts))


Change = Callable[[Tree], Sequence[Tree]]

_changes: st.SearchStrategy[Change] = st.one_of(
    st.just(lambda _: ()),
    st.just(lambda tree: (tree, tree)),
    st.just(lambda tree: (Tree(tree.tag),)),
    st.just(lambda tree: (tree, Tree(0x05))),
    st.just(lambda tree: (Tree(0x30, b"", (tree,)),)),
    st.just(lambda tree: tree.parts or (tree,)),
    st.integers(0, 255).map(lambda tag: lambda tree: (evolve(tree, tag=tag),)),
    st.binary(max_size=40).map(lambda content: lambda tree: (Tree(tree.tag, content),)),
    st.binary(max_size=8).map(
        lambda more: lambda tree: (Tree(tree.tag, tree.encode()[2:] + more),)
    ),
    st.integers(1, 5).map(lambda n: lambda tree: (Tree(tree.tag, tree.encode()[2:-n]),)),
    st.integers(2, 300).map(lambda n: lambda tree: (tree,) * n),
)


@st.composite
def damaged(draw: st.DrawFn, specimens: Sequence[bytes]) -> bytes:
    """One of ``specimens`` with up to three changes along its structure."""
    tree = parse(draw(st.sampled_from(specimens)))
    for _ in range(draw(st.integers(1, 3))):
        ways = places(tree)
        if not ways:
            break
        tree = changed(tree, draw(st.sampled_from(ways)), draw(_changes))
    return tree.encode()
