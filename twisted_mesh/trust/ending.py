"""When a connection is near its end, so that whoever speaks HTTP on it has its caller make another before it is cut."""

from datetime import datetime, timedelta

#: The last part of a connection's life: so much of it, and no longer than that.
_SHARE, _MOST = 10, timedelta(minutes=1)


def leave_by(end: datetime, now: datetime) -> datetime:
    """From when on each answer should be the last, where the connection began ``now``.

    At ``end``, when the first of its certificates ends, it is cut, whatever is under way.
    """
    return end - min(_MOST, (end - now) / _SHARE)
