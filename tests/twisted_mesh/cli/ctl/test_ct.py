"""``mesh-ctl ct`` as it is typed: watching, searching, proving and judging a log's files, and telling a webhook."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import EntryType, SignedEntry, key_hash_of
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList, LogState, verify_signature
from pki.ct.precertificate import with_scts
from pki.ct.receipt import sign_sct
from pki.ct.sct import list_bytes, milliseconds
from pki.issuing.unsigned import assemble
from pki.keys import KeyAlgorithm
from tests.authorities import NOW, key, mesh
from tests.running import CHECKOUT, PATIENCE, Running, run, until
from tests.running import mesh as running_mesh
from tests.written_log import WrittenLog, leaves

NAME = "spiffe://mesh.local/service/n1"


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    made = WrittenLog(tmp_path / "log")
    made.add(*leaves(3))
    made.sign(datetime.now(UTC))
    (tmp_path / "logs.json").write_bytes(made.logs.to_bytes())
    return made


def ctl(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    ran = [sys.executable, CHECKOUT / "bin" / "mesh-ctl", "ct", *words]
    env = {"MESH_STATE_DIR": str(home / "state"), "NO_COLOR": "1"}
    return run(*ran, cwd=home, env=env)


COPY = ("--copy", "log", "--ct-logs", "logs.json")


def watch(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return ctl(home, "watch", *COPY, "--once", *words)


@pytest.mark.usefixtures("log")
def test_what_is_watched_for_is_told_once_and_found_ever_after(tmp_path: Path) -> None:
    done = watch(tmp_path, "--name", NAME, "--metrics-file", "ct.prom", "--format", "json")
    assert done.returncode == 1, done.stderr
    alert = json.loads(done.stdout.splitlines()[0])
    assert (alert["event"], alert["kind"]) == ("ct-alert", "name-seen")
    assert alert["alert_spiffe_id"] == NAME
    figures = (tmp_path / "ct.prom").read_text()
    assert 'mesh_ct_alerts_total{kind="name-seen"} 1.0' in figures
    assert 'mesh_ct_entries_read{log="log.example/2026"} 3.0' in figures
    again = watch(tmp_path, "--name", NAME)
    assert (again.returncode, "3 entries read" in again.stderr) == (0, True), again.stderr
    found = json.loads(ctl(tmp_path, "search", "--name", NAME, "--format", "json").stdout)
    assert [(one["position"], one["names"]) for one in found] == [(1, [NAME])]
    direct = ctl(tmp_path, "search", *COPY, "--name", "spiffe://mesh.local/**", "--format", "json")
    assert len(json.loads(direct.stdout)) == 3


def test_a_log_that_cannot_be_read_is_an_alert(tmp_path: Path, log: WrittenLog) -> None:
    (log.path / "tile/data/000.p/3").unlink()
    done = watch(tmp_path)
    assert done.returncode == 1
    assert "log-away: " in done.stdout
    assert "0 entries read" in done.stderr


@contextmanager
def webhook(*statuses: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A server that answers so, one after the other, and what it was sent."""
    left, got = list(statuses), list[dict[str, object]]()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append({"auth": self.headers["authorization"], **json.loads(body)})
            self.send_response(left.pop(0))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret-token", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.usefixtures("log")
def test_a_webhook_that_fails_is_told_the_next_time_and_its_url_is_told_nobody(
    tmp_path: Path,
) -> None:
    with webhook(500, 200) as (url, got):
        (tmp_path / "hook").write_text(f"{url}\nBearer of-news\n")
        (tmp_path / "hook").chmod(0o600)
        first = watch(tmp_path, "--name", NAME, "--webhook-file", "hook")
        assert first.returncode == 1
        assert "answers 500" in first.stdout
        assert "secret-token" not in first.stdout + first.stderr
        assert watch(tmp_path, "--webhook-file", "hook").returncode == 0
    assert [hit["auth"] for hit in got] == ["Bearer of-news"] * 2
    (alert,) = got[1]["alerts"]  # type: ignore[misc]
    assert (alert["kind"], alert["number"]) == ("name-seen", 1)  # type: ignore[index]


def with_receipt(log: WrittenLog, plain: x509.Certificate, index: int) -> x509.Certificate:
    """The same certificate with a receipt of the log for its entry ``index``, which is not added."""
    issuer = mesh().issuing
    tbs = plain.tbs_certificate_bytes
    entry = SignedEntry(EntryType.PRECERT, tbs, key_hash_of(issuer.certificate))
    at = milliseconds(datetime.now(UTC) - timedelta(hours=1))
    sct = asyncio.run(sign_sct(entry, at, index, log.key))
    final = with_scts(tbs, list_bytes([sct]))
    signature = asyncio.run(issuer.key.sign(final))
    algorithm = KeyAlgorithm.of(issuer.certificate.public_key())
    assert algorithm is not None
    return x509.load_der_x509_certificate(assemble(final, algorithm.identifier, signature))


def write_chain(path: Path, cert: x509.Certificate) -> None:
    path.write_bytes(
        cert.public_bytes(Encoding.PEM) + mesh().issuing.certificate.public_bytes(Encoding.PEM)
    )


def test_a_certificate_whose_entry_is_there_is_proven(tmp_path: Path, log: WrittenLog) -> None:
    (plain,) = leaves(1, "service/proved")
    cert = with_receipt(log, plain, 3)
    write_chain(tmp_path / "web.pem", cert)
    (sct,) = cert.extensions.get_extension_for_class(
        x509.PrecertificateSignedCertificateTimestamps
    ).value
    log.add(plain, at=sct.timestamp.replace(tzinfo=UTC))
    log.sign(datetime.now(UTC))
    done = ctl(tmp_path, "prove", "web.pem", *COPY, "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["proven"] is True
    assert [one["position"] for one in told["receipts"]] == [3]


@pytest.mark.parametrize("index", [1, 7])
def test_one_whose_entry_is_not_there_is_evidence_that_anybody_can_judge(
    tmp_path: Path, log: WrittenLog, index: int
) -> None:
    write_chain(tmp_path / "web.pem", with_receipt(log, leaves(1)[0], index))
    done = ctl(tmp_path, "prove", "web.pem", *COPY, "--evidence", ".", "--format", "json")
    assert done.returncode == 1, done.stdout + done.stderr
    (receipt,) = json.loads(done.stdout)["receipts"]
    judged = ctl(tmp_path, "verify", receipt["evidence"], "--ct-logs", "logs.json")
    assert judged.returncode == 0, judged.stdout
    assert judged.stdout.startswith("ct-entry-missing: ")
    text = Path(tmp_path / receipt["evidence"]).read_text()
    cut = tmp_path / "cut.json"
    cut.write_text(text.replace("missing-entry", "split-view"))
    refused = ctl(tmp_path, "verify", cut, "--ct-logs", "logs.json", "--format", "json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["proven"] is False


def test_one_without_receipts_is_not_proven(tmp_path: Path, log: WrittenLog) -> None:
    write_chain(tmp_path / "web.pem", leaves(1)[0])
    done = ctl(tmp_path, "prove", "web.pem", *COPY)
    assert done.returncode == 1
    assert "no receipts" in done.stdout


def test_a_list_is_signed_retired_and_signed_again(tmp_path: Path, log: WrittenLog) -> None:
    signer = key("who says which logs count", KeyAlgorithm.EC_P256)
    (tmp_path / "key.pem").write_bytes(signer.to_pem())
    assert ctl(tmp_path, "logs", "sign", "logs.json", "--key", "key.pem").returncode == 0
    refused = ctl(tmp_path, "logs", "retire", "logs.json", "log.example/2026")
    assert (refused.returncode, "signed" in refused.stderr) == (2, True)
    retire = ("logs", "retire", "logs.json", "log.example/2026", "--key", "key.pem")
    assert ctl(tmp_path, *retire).returncode == 0
    data = (tmp_path / "logs.json").read_bytes()
    verify_signature(data, (tmp_path / "logs.json.sig").read_bytes(), signer.public_key)
    assert [str(one.state) for one in LogList.parse(data).logs] == ["retired"]
    show = ("logs", "show", "logs.json", "--format", "json", "--ct-logs-key", "logs.json.pub")
    told = json.loads(ctl(tmp_path, *show).stdout)
    assert (told["signed"], told["logs"][0]["state"]) == (True, "retired")
    (tmp_path / "logs.json.sig").write_bytes(base64.b64encode(b"x" * 70))
    assert ctl(tmp_path, *show).returncode == 2
    assert log.log.origin == "log.example/2026"


def test_what_logs_say_of_themselves_is_put_into_one_list(tmp_path: Path, log: WrittenLog) -> None:
    other = key("another log", KeyAlgorithm.EC_P256)
    url = "https://another.example/2026/"
    second = Log("another", LogKey.of(other.public_key), url, url)
    (tmp_path / "other.json").write_bytes(LogList((second,), NOW).to_bytes())
    done = ctl(tmp_path, "logs", "add", "both.json", "logs.json", "other.json")
    assert done.returncode == 0, done.stderr
    both = LogList.parse((tmp_path / "both.json").read_bytes())
    assert [one.origin for one in both.logs] == [log.log.origin, "another.example/2026"]
    assert both.timestamp is not None
    retired = second.retired(LogState.READONLY, NOW)
    (tmp_path / "other.json").write_bytes(LogList((retired,), NOW).to_bytes())
    assert ctl(tmp_path, "logs", "add", "both.json", "other.json").returncode == 0
    assert LogList.parse((tmp_path / "both.json").read_bytes()).logs == (both.logs[0], retired)
    # Under the name of one that is known, and with another key: it would count beside it.
    named = evolve(second, key=LogKey.of(key("its thief", KeyAlgorithm.EC_P256).public_key))
    (tmp_path / "other.json").write_bytes(LogList((named,), NOW).to_bytes())
    refused = ctl(tmp_path, "logs", "add", "both.json", "other.json")
    assert refused.returncode == 2
    assert "one submission URL" in refused.stderr
    assert LogList.parse((tmp_path / "both.json").read_bytes()).logs == (both.logs[0], retired)


@pytest.mark.parametrize(
    "words",
    [
        ("watch", *COPY, "--once", "--status", "127.0.0.1:0"),
        ("watch", *COPY, "--status", "0.0.0.0:80"),
        ("watch", *COPY, "--name", "a b"),
        ("watch", *COPY, "--command", "there-is-no-such-program"),
        ("watch", *COPY, "--webhook", "http://example.com/"),
        ("watch", *COPY, "--expect-key", "spiffe://mesh.local/x"),
        ("prove", "logs.json", *COPY, "--cosigned", "1"),
        ("search",),
        ("search", "--copy", "log"),
        ("logs", "sign", "logs.json"),
        ("logs", "retire", "logs.json", "another.example"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path, log: WrittenLog, words: tuple[str, ...]
) -> None:
    done = ctl(tmp_path, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert log.size == 3


@pytest.mark.usefixtures("log")
def test_one_that_goes_on_shows_how_it_stands_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    ran = [sys.executable, CHECKOUT / "bin" / "mesh-ctl", "ct", "watch", *COPY, "--compare"]
    env = {"MESH_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    watcher = Running.start(
        *ran, "--interval", "1s", "--status", "127.0.0.1:0", cwd=tmp_path, env=env
    )
    try:
        url = watcher.wait_for(r"How it stands: (\S+)/metrics")[1]
        watcher.wait_for("ca-away: ")
        # What stands is counted after the turn that has told of it.
        until(lambda: not is_ready(url))
        until(lambda: b'mesh_ct_standing{kind="ca-away"} ' in measured(url))
    finally:
        assert watcher.stop() == 130


def is_ready(url: str) -> bool:
    try:
        urlopen(f"{url}/readyz", timeout=PATIENCE).close()
    except HTTPError as error:
        assert error.code == 503
        return False
    return True


def measured(url: str) -> bytes:
    with urlopen(f"{url}/metrics", timeout=PATIENCE) as answer:
        return bytes(answer.read())


@pytest.mark.slow
def test_a_real_ca_is_asked_what_it_knows(tmp_path: Path, log: WrittenLog) -> None:
    with running_mesh(tmp_path) as mesh_:
        mesh_.start_ca()
        words = ("watch", *COPY, "--compare", "--once", "--since", "2026-01-01T00:00:00Z")
        done = mesh_.ctl("ct", *words, "--format", "json")
    assert done.returncode == 1, done.stdout + done.stderr
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    told = {one["alert_names"] for one in alerts if one.get("kind") == "not-on-record"}
    assert told == {f"spiffe://mesh.local/service/n{n}" for n in range(log.size)}
