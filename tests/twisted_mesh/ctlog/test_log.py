"""mesh-ctlog as a process: it takes precertificates, gives receipts that hold, and shows what it has."""

import gzip
import http.client
import json
import signal
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from pki.ct.entry import parse_data_tile
from pki.ct.log_list import LogList
from pki.ct.receipt import SctDemand, verify_sct
from pki.ct.sct import SignedCertificateTimestamp
from pki.svid.x509svid import certificates_pem
from pki.tlog.merkle import inclusion_proof, verify_inclusion
from tests.authorities import key, mesh
from tests.ctlogs import RunningLog, chain_of, der, entry_of, final, precertificate, running_log
from tests.running import BIN, free_port, run
from tests.twisted_mesh.federation.hostile import reactor
from tests.twisted_mesh.grpc import sockets
from twisted_mesh.ct.log_client import LogClient
from twisted_mesh.tls.alerts import RefusedByPeer
from twisted_mesh.tls.self_signed import SelfSigned


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunningLog]:
    with running_log(tmp_path / "log") as running:
        yield running


def test_a_receipt_holds_and_its_entry_is_there_at_once(log: RunningLog) -> None:
    now = datetime.now(UTC)
    pre = precertificate(log.of, now=now)
    sct = log.submit(pre)
    verify_sct(sct, entry_of(log.of, pre), log.log.key)
    assert sct.leaf_index == 0
    cert = final(log.of, pre, [sct])
    demand = SctDemand(1, LogList((log.log,)))
    assert demand.problems([cert, log.of.issuing.certificate], datetime.now(UTC)) == ()
    head = log.head
    assert (head.size, head.origin) == (1, f"localhost:{log.port}")
    (entry,) = parse_data_tile(log.get("tile/data/000.p/1")[1])
    assert entry.signed == entry_of(log.of, pre)
    assert entry.pre_certificate == der(pre)
    assert entry.timestamp == sct.timestamp <= head.timestamp
    _, hashes = log.get("tile/0/000.p/1")
    assert hashes == entry.leaf_hash
    proof = inclusion_proof(0, 1, lambda *_: hashes)
    verify_inclusion(entry.leaf_hash, 0, 1, proof, head.root)
    issuers = [log.of.issuing.certificate, log.of.root.certificate]
    assert entry.chain == tuple(sha256(der(one)).digest() for one in issuers)
    for one in issuers:
        status, body = log.get(f"issuer/{sha256(der(one)).hexdigest()}")
        assert (status, body) == (200, der(one))
    again = log.submit(pre)
    assert (again.timestamp, again.extensions) == (sct.timestamp, sct.extensions)
    assert log.head.size == 1
    status, answer = log.post(chain_of(log.of, cert), "add-chain")
    assert status == 200, answer
    assert log.head.size == 2


def test_killed_under_load_it_has_an_entry_for_each_receipt(tmp_path: Path) -> None:
    with running_log(tmp_path / "log") as log:
        now = datetime.now(UTC)
        pres = [precertificate(log.of, f"s{number}", now) for number in range(120)]
        got: dict[int, SignedCertificateTimestamp] = {}

        def load(who: int) -> None:
            connection = log.connect()
            try:
                for at in range(who, len(pres), 4):
                    got[at] = log.submit(pres[at], connection)
                    if len(got) == 60 and log.running is not None:
                        log.running.process.send_signal(signal.SIGKILL)
            except (OSError, http.client.HTTPException):
                pass  # it is killed
            finally:
                connection.close()

        threads = [threading.Thread(target=load, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.running is not None and log.running.wait() == -signal.SIGKILL
        assert 60 <= len(got) < 120
        log.start()
        size = log.verified_size()
        status, body = log.get(f"tile/data/000.p/{size}")
        assert status == 200
        entries = parse_data_tile(body)
        for at, sct in got.items():
            assert sct.leaf_index is not None
            entry = entries[sct.leaf_index]
            assert (entry.timestamp, entry.signed) == (sct.timestamp, entry_of(log.of, pres[at]))
        assert len({sct.leaf_index for sct in got.values()}) == len(got)
        # Whoever got no answer asks again, and nothing is there twice.
        for at, pre in enumerate(pres):
            if at not in got:
                got[at] = log.submit(pre)
        assert {sct.leaf_index for sct in got.values()} == set(range(120))
        assert log.verified_size() == 120


def test_a_ca_that_the_log_does_not_know_is_told_what_to_tell_it(log: RunningLog) -> None:
    pre = precertificate(log.of, now=datetime.now(UTC))
    other = SelfSigned.of(key("somebody else"), "x", datetime.now(UTC))
    asking = LogClient(log.log, reactor(), other)
    with pytest.raises(RefusedByPeer, match="does not take our key") as refused:
        sockets.run(asking.add_pre_chain((pre, log.of.issuing.certificate)))
    assert f"mesh-ctlog --accept-ca ID={other.pin}" in str(refused.value)


def test_who_may_submit_and_what_readers_get(log: RunningLog) -> None:
    pre = precertificate(log.of, now=datetime.now(UTC))
    anonymous = log.connect(shows_key=False)
    status, refusal = log.post(chain_of(log.of, pre), connection=anonymous)
    assert (status, refusal["code"]) == (403, "not-authorized")
    assert "no key was shown" in refusal["detail"]
    other = SelfSigned.of(key("somebody else"), "x", datetime.now(UTC))
    pem = log.home / "other.pem"
    pem.write_bytes(other.key.to_pem() + certificates_pem([other.certificate]))
    context = ssl.create_default_context(cafile=str(log.state / "ctlog" / "tls.crt"))
    context.load_cert_chain(pem)
    stranger = http.client.HTTPSConnection("localhost", log.port, timeout=30, context=context)
    with pytest.raises((OSError, http.client.HTTPException)):
        log.post(chain_of(log.of, pre), connection=stranger)
    stranger.close()
    assert log.running is not None
    log.running.wait_for(f"write --accept-ca ID={str(other.pin).replace('+', '[+]')}")
    now = datetime.now(UTC).replace(microsecond=0)
    foreign = mesh(root_key=key("a foreign root"), issuing_key=key("a foreign CA"), now=now)
    status, refusal = log.post(chain_of(foreign, precertificate(foreign, now=datetime.now(UTC))))
    assert (status, refusal["code"]) == (400, "not-accepted-here")
    for body in (b"", b"{}", b'{"chain":"x"}', b'{"chain":["?"]}', b'{"chain":["\xff"]}'):
        connection = log.connect()
        connection.request("POST", "/ct/v1/add-chain", body)
        answer = connection.getresponse()
        assert answer.status == 400 and json.loads(answer.read())["code"] == "malformed"
        connection.close()
    log.submit(pre)
    status, roots = log.get("ct/v1/get-roots")
    assert status == 200 and len(json.loads(roots)["certificates"]) == 1
    for path, status in (
        ("tile/0/000", 404),
        ("tile/0/000.p/2", 404),
        ("tile/0/../../../private/log.key", 404),
        ("issuer/" + "0" * 64, 404),
        ("private/ctlog.db", 404),
        (".new", 404),
        ("ct/v1/add-chain", 405),
        ("", 404),
    ):
        assert log.get(path)[0] == status, path
    anonymous.request("GET", "/tile/data/000.p/1", headers={"accept-encoding": "gzip"})
    answer = anonymous.getresponse()
    packed = answer.read()
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert gzip.decompress(packed) == log.get("tile/data/000.p/1")[1]
    anonymous.request("GET", "/checkpoint")
    answer = anonymous.getresponse()
    answer.read()
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    anonymous.close()


def test_many_readers_at_once_hold_up_no_receipt(log: RunningLog) -> None:
    log.log_one()
    failed: list[int] = []

    def read() -> None:
        for _ in range(5):
            status, _ = log.get("tile/data/000.p/1")
            if status != 200:
                failed.append(status)

    readers = [threading.Thread(target=read) for _ in range(20)]
    for reader in readers:
        reader.start()
    for number in range(5):
        log.log_one(f"s{number}")
    for reader in readers:
        reader.join()
    assert failed == []
    assert log.verified_size() == 6


def test_another_one_on_its_directory_and_another_name_are_refused(log: RunningLog) -> None:
    def refused(*words: str) -> str:
        done = run(BIN / "mesh-ctlog", *log.words, *words, cwd=log.home, env={})
        assert done.returncode == 1
        return done.stderr

    assert "another mesh-ctlog, PID" in refused("--listen", f"127.0.0.1:{free_port()}")
    log.stop()
    assert "a log keeps its name for life" in refused("--url", "https://other.example/")
    (log.state / "ctlog/private/log.key").rename(log.home / "log.key")
    assert "bring the key back" in refused()
    (log.home / "log.key").rename(log.state / "ctlog/private/log.key")
    (log.public / "checkpoint").unlink()
    log.start()  # it has no entries yet: nothing is lost
    assert log.verified_size() == 0


def test_retired_it_is_read_and_takes_nothing_and_a_damaged_one_is_served_so(
    log: RunningLog,
) -> None:
    log.log_one()
    head = log.head
    assert log.running is not None and log.running.stop() == 0
    (log.public / "checkpoint").rename(log.home / "checkpoint")
    done = run(BIN / "mesh-ctlog", *log.words, cwd=log.home, env={})
    assert done.returncode == 1 and "--read-only" in done.stderr
    (log.home / "checkpoint").rename(log.public / "checkpoint")
    (log.state / "ctlog/private/ctlog.db").unlink()
    log.start("--read-only")
    status, refusal = log.post(chain_of(log.of, precertificate(log.of, now=datetime.now(UTC))))
    assert (status, refusal["code"]) == (403, "log-read-only")
    assert log.head == head and log.verified_size() == 1
    assert log.log.state == "readonly" and log.log.state_since is not None


def test_it_says_how_it_is_and_what_is_read_again(tmp_path: Path) -> None:
    with running_log(tmp_path / "log") as log:
        assert log.running is not None and log.running.stop() == 0
        place = f"127.0.0.1:{free_port()}"
        running = log.start("--status", place)

        def ask(path: str) -> str:
            with urllib.request.urlopen(f"http://{place}{path}") as answer:
                text: str = answer.read().decode()
                return text

        assert json.loads(ask("/readyz")) == {"status": "ready", "entries": 0}
        log.log_one()
        assert "mesh_ctlog_entries 1.0" in ask("/metrics")
        assert 'mesh_ctlog_submissions_total{outcome="new"} 1.0' in ask("/metrics")
        (log.home / "roots.pem").write_text("nonsense")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("SIGHUP: the roots is not taken up")
        with pytest.raises(urllib.error.HTTPError) as unready:
            ask("/readyz")
        assert json.loads(unready.value.read())["code"] == "unknown-trust-domain"
        log.log_one()  # by the roots that were read before
        assert running.stop() == 0
