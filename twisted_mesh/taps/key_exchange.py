"""The option ``--require-pq`` of services."""

#: In the form of ``optFlags``.
REQUIRE_PQ = [
    "require-pq",
    None,
    "over TLS exchange keys by hybrid groups alone (X25519MLKEM768 and such), which no quantum computer breaks",
]


def demand_hybrid_groups() -> None:
    """Raises :class:`~twisted_mesh.tls.groups.NoHybridGroup` where this process could not insist on them."""
    from twisted_mesh.tls.groups import demand  # most services are not told so

    demand()
