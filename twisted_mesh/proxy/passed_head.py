"""Heads of requests and answers, as they are passed on."""

from collections.abc import Sequence

from twisted_mesh.proxy.forwarded import is_ours
from twisted_mesh.proxy.http_message import Framing, Header, RequestHead, ResponseHead, written


def told_headers(head: RequestHead, identity: Sequence[Header]) -> list[Header]:
    """Those of a request, as the target is told them: with who has called, and without what says that besides."""
    headers = [header for header in head.headers if not is_ours(header[0])]
    headers += identity
    if head.framing.is_chunked:
        headers.append((b"Transfer-Encoding", b"chunked"))
    if head.upgrade:
        headers += [(b"Connection", b"upgrade"), (b"Upgrade", head.upgrade)]
    elif head.is_last:
        headers.append((b"Connection", b"close"))
    return headers


def said_head(head: ResponseHead, framing: Framing, *, is_last: bool) -> bytes:
    """The head of an answer, as the caller is told it."""
    headers = [*head.headers]
    if framing.is_chunked:
        headers.append((b"Transfer-Encoding", b"chunked"))
    if head.status == 101:
        headers += [(b"Connection", b"upgrade"), (b"Upgrade", head.upgrade)]
    elif is_last:
        headers.append((b"Connection", b"close"))
    return written(b"HTTP/1.1 %d %s" % (head.status, head.reason), headers)
