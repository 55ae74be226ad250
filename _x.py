def sub(path, *pairs):
    s = open(path).read()
    for a, b in pairs:
        assert s.count(a) == 1, (path, a, s.count(a))
        s = s.replace(a, b)
    open(path, "w").write(s)


sub(
    "tests/twisted_mesh/stdlib/test_paths.py",
    (
        """    client = JoinedIdentity(Source())  # type: ignore[arg-type]
    client._renew()
    try""",
        """    client = JoinedIdentity(Source(chain=NEW))  # type: ignore[arg-type]
    client._renew()
    try""",
    ),
    (
        """    with pytest.raises(ssl.SSLError):
        web._believe(news())
        web.server_context(str(WEB)).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
""",
        "",
    ),
    ("import ssl\n", ""),
    ("svid, trust = source", "svid, _ = source"),
)
