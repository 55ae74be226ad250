"""A table is the same whoever writes it."""

from hypothesis import given
from hypothesis import strategies as st

from pki.errors import printable
from twisted_mesh.cli.ctl import output


@given(
    st.booleans(),
    st.lists(
        st.tuples(*[st.one_of(st.none(), st.text(max_size=12)) for _ in range(3)]), max_size=5
    ),
)
def test_without_a_terminal_a_table_is_the_same_without_rich(
    headed: bool, rows: list[tuple[str | None, ...]]
) -> None:
    cells = [[printable(cell) if cell else "-" for cell in row] for row in rows]
    plain = output._unfolded(("A", "BBB", "C D"), cells, headed=headed)
    if plain is not None:
        rich = output._folded(("A", "BBB", "C D"), cells, headed=headed)
        assert [line.rstrip() for line in plain] == [line.rstrip() for line in rich]
