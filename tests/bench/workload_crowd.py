"""Many workloads at once: processes that each follow their SVIDs over a connection of their own. A program of its own.

``workload_crowd.py SOCKET COUNT FIRST_UID``: each has a user of its own from FIRST_UID on, or ours where that is 0.
Prints how many seconds it took until all had their first answer, and ends with its input.
"""

import os
import signal
import socket
import sys
import time

from h2.config import H2Configuration
from h2.connection import H2Connection

from twisted_mesh.workload import messages

#: Bytes by which an answer has surely come: headers and settings are far fewer.
_AN_ANSWER = 1000


def request() -> bytes:
    """All that a client has to say."""
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    h2.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", messages.FETCH_X509_SVID),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            messages.SECURITY_HEADER,
        ],
    )
    h2.send_data(1, b"\0\0\0\0\0", end_stream=True)
    data: bytes = h2.data_to_send()
    return data


def follow(path: str, uid: int, asked: bytes, done: int, go: int) -> None:
    if uid:
        os.setuid(uid)
    with socket.socket(socket.AF_UNIX) as connected:
        os.read(go, 1)
        try:
            connected.connect(path)
        except OSError:
            os.write(done, b"-")
            return
        connected.sendall(asked)
        got = 0
        while got < _AN_ANSWER:
            data = connected.recv(65536)
            if not data:
                os.write(done, b"-")
                return
            got += len(data)
        os.write(done, b"+")
        while connected.recv(65536):
            pass


def main() -> None:
    path, count, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    asked = request()
    told, done = os.pipe()
    go, start = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            try:
                follow(path, first and first + number, asked, done, go)
            finally:
                os._exit(0)
        children.append(child)
    began = time.monotonic()
    os.write(start, b"x" * count)
    answers = b""
    while len(answers) < count:
        answers += os.read(told, 4096)
    print(time.monotonic() - began, answers.count(b"+"), flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
