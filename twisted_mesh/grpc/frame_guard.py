"""Looks at the frames that come before h2 does, which keeps a frame and a block of headers until it is whole."""

from h2.errors import ErrorCodes

_HEAD = 9
#: Of one frame, in bytes: what every peer may send (RFC 9113 section 4.2), and no peer was offered more.
_LONGEST = 16 * 1024
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
#: For each frame that is sent, so many that carry nothing may come.
_EARNED = 4


class BadFrame(Exception):
    """The connection is to end, for that reason."""

    def __init__(self, code: ErrorCodes, text: str) -> None:
        self.code = code
        super().__init__(text)


class FrameGuard:
    """Bounds what a peer can have kept or done for nothing: long frames, long headers, floods of empty words."""

    def __init__(self, preface: int, header_bytes: int, idle_frames: int) -> None:
        self._left = preface
        self._head = bytearray()
        self._block = 0
        """Of the block of headers that is under way, so many bytes have come."""
        self._header_bytes = header_bytes
        self._idle_frames = idle_frames
        self._second = 0
        self._idle = 0

    def earn(self) -> None:
        """A frame of ours went out: clients answer each with credit, measure the way by pings, take calls back."""
        self._idle = max(0, self._idle - _EARNED)

    def feed(self, data: bytes, now: float) -> None:
        """Look at what has come at ``now``, in seconds. Raises :class:`BadFrame`."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            more = data[at : at + _HEAD - len(self._head)]
            self._head += more
            at += len(more)
            if len(self._head) == _HEAD:
                self._begin(int.from_bytes(self._head[:3], "big"), self._head[3], now)
                self._head.clear()

    def _begin(self, length: int, kind: int, now: float) -> None:
        if length > _LONGEST:
            raise BadFrame(
                ErrorCodes.FRAME_SIZE_ERROR,
                f"a frame of {length} bytes, and {_LONGEST} are the most",
            )
        self._left = length
        if kind in (_HEADERS, _CONTINUATION):
            self._block = length + (self._block if kind == _CONTINUATION else 0)
            if self._block > self._header_bytes:
                raise BadFrame(
                    ErrorCodes.ENHANCE_YOUR_CALM, f"headers of more than {self._header_bytes} bytes"
                )
        if kind != _HEADERS and (kind != _DATA or not length):
            self._count(now)

    def _count(self, now: float) -> None:
        second = int(now)
        if second != self._second:
            self._second, self._idle = second, 0
        self._idle += 1
        if self._idle > self._idle_frames:
            raise BadFrame(
                ErrorCodes.ENHANCE_YOUR_CALM,
                f"more than {self._idle_frames} frames a second that carry nothing",
            )
