def sub(path, *pairs):
    s = open(path).read()
    for a, b in pairs:
        assert s.count(a) == 1, (path, a, s.count(a))
        s = s.replace(a, b)
    open(path, "w").write(s)


sub(
    "twisted_mesh/workload/agent_issuer.py",
    (
        """    _turned_away: X509Svid | None = field(default=None, init=False)
""",
        """    _turned_away: x509.Certificate | None = field(default=None, init=False)
""",
    ),
    (
        """            self._turned_away = self.identity.svid
""",
        """            svid = self.identity.svid
            self._turned_away = None if svid is None else svid.leaf
""",
    ),
    ("svid is self._turned_away", "svid.leaf == self._turned_away"),
)
sub(
    "tests/twisted_mesh/workload/test_agent_standing.py",
    (
        "manager=SimpleNamespace(seconds_left=3600.0, last_problem=None)",
        "manager=SimpleNamespace(seconds_left=3600.0, last_problem=None, told_paths={})",
    ),
)
