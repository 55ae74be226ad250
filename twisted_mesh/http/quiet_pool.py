"""Connections of twisted.web's client of which the log of somebody else's program hears nothing."""

from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory


class _QuietFactory(_HTTP11ClientFactory):
    """What a pool makes for each connection; the base has no public name."""

    noisy = False


class QuietPool(HTTPConnectionPool):
    """A pool whose connections are not announced one by one, each in a line of object addresses."""

    _factory = _QuietFactory
