"""What ``mesh-ctl ct logs`` does. Nobody is asked: it works on files."""

import base64
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from attrs import evolve, frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki.ct.document import LARGEST
from pki.ct.errors import BadLogList
from pki.ct.log_list import LogList, LogState, sign_list
from pki.keys import MemoryKey, SigningKey
from pki.keys.spki import spki_pin
from pki.validity import parse_rfc3339, rfc3339
from twisted_mesh.api.blocking_client import result_of
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.program import Unusable
from twisted_mesh.cli.status import DONE
from twisted_mesh.ct.log_file import LogFile, logs_key
from twisted_mesh.offline.root import OfflineRoot
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import read_file, write_whole
from twisted_mesh.state.passphrase import read_passphrase

_HEADINGS = ("ORIGIN", "STATE", "SINCE", "LOG ID", "DESCRIPTION")


@frozen
class Signer:
    """Whose key signs a list."""

    key: Path | None
    root: Path | None
    passphrase_file: Path | None

    @classmethod
    def of(cls, key: str | None, root: str | None, passphrase_file: str | None) -> "Signer | None":
        """None where nobody was named. Raises :class:`Unusable`."""
        if key and root:
            raise Unusable("--key and --root are two who could sign: name one")
        if not key and not root:
            return None
        return cls(
            Path(key) if key else None,
            Path(root) if root else None,
            Path(passphrase_file) if passphrase_file else None,
        )

    def sign(self, logs: LogList) -> tuple[bytes, SigningKey]:
        """The signature, and the key that has made it. Raises :class:`pki.errors.PkiError`."""
        passphrase = read_passphrase(self.passphrase_file)
        if self.root is not None:
            with closing(OfflineRoot.open(self.root, passphrase, wall_clock)) as root:
                key: SigningKey = root.authority.key
                return result_of(sign_list(logs, key)), key
        if self.key is None:
            raise AssertionError("one of both was named")
        key = MemoryKey.from_pem(read_file(self.key, "--key"), passphrase)
        return result_of(sign_list(logs, key)), key


def show(path: Path, key: str | None, *, as_json: bool) -> int:
    """``ct logs show``."""
    file = LogFile(path, logs_key(key, path) if key else None)
    file.load()
    rows = [
        {
            "origin": log.origin,
            "state": str(log.state),
            "since": rfc3339(log.state_since) if log.state_since else None,
            "log_id": base64.b64encode(log.log_id).decode(),
            "description": log.description,
            "submission_url": log.submission_url,
            "monitoring_url": log.monitoring_url,
            "tls_pins": list(map(str, log.tls_pins)),
        }
        for log in file.logs.logs
    ]
    if as_json:
        at = file.logs.timestamp
        output.put_json(
            {"timestamp": rfc3339(at) if at else None, "signed": bool(key), "logs": rows}
        )
        return DONE
    cells = [
        [str(row[name] or "") for name in ("origin", "state", "since", "log_id", "description")]
        for row in rows
    ]
    output.put_table(_HEADINGS, cells)
    if not key:
        output.say("the signature was not looked at: --ct-logs-key says whose it must be")
    return DONE


def add(path: Path, entries: Sequence[Path], signer: Signer | None) -> int:
    """``ct logs add``."""
    _demand_signer(path, signer)
    logs = _read(path) if path.exists() else LogList(())
    for entry in entries:
        for log in _read(entry).logs:
            known = logs.log_of(log.log_id)
            told = "is in it"
            if known is not None:
                told = "is as it was" if known == log else "is in it as its entry has it now"
            if known is None:
                logs = evolve(logs, logs=(*logs.logs, log))
            else:
                logs = evolve(logs, logs=tuple(log if one is known else one for one in logs.logs))
            output.say(f"{log.origin} {told}")
    return _deliver(path, logs, signer)


def sign(path: Path, signer: Signer) -> int:
    """``ct logs sign``."""
    return _deliver(path, _read(path), signer)


def retire(path: Path, origin: str, at: str | None, state: str, signer: Signer | None) -> int:
    """``ct logs retire``."""
    logs = _read(path)
    log = logs.log_at(origin.removeprefix("https://").rstrip("/"))
    if log is None:
        known = ", ".join(one.origin for one in logs.logs) or "none"
        raise Unusable(f"there is no log {origin!r} in {path}: there are {known}")
    _demand_signer(path, signer)
    moment = parse_rfc3339(at) if at else wall_clock().replace(microsecond=0)
    retired = log.retired(LogState(state), moment)
    changed = evolve(logs, logs=tuple(retired if one is log else one for one in logs.logs))
    output.say(f"{log.origin} is {state} since {rfc3339(moment)}")
    return _deliver(path, changed, signer)


def _demand_signer(path: Path, signer: Signer | None) -> None:
    if signer is None and _beside(path, "sig").exists():
        raise Unusable(f"{path} is signed: say with --key or --root who signs it anew")


def _deliver(path: Path, logs: LogList, signer: Signer | None) -> int:
    now = wall_clock().replace(microsecond=0)
    if logs.timestamp is not None and logs.timestamp > now:
        raise BadLogList(
            f"{path} was made at {rfc3339(logs.timestamp)}, and here it is {rfc3339(now)}: look at this clock, since "
            "endpoints take no list that is older than the one they have"
        )
    logs = evolve(logs, timestamp=now)
    if signer is None:
        write_whole(path, logs.to_bytes(), 0o644)
        output.say(f"{path} is written; copy it to whoever relies on it")
        return DONE
    signature, key = signer.sign(logs)
    public = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # Whoever reads between two of these has a list whose signature is not its own, and keeps the one before.
    write_whole(_beside(path, "pub"), public, 0o644)
    write_whole(_beside(path, "sig"), signature, 0o644)
    write_whole(path, logs.to_bytes(), 0o644)
    output.say(
        f"{path} is signed, in {_beside(path, 'sig').name}: copy both, and {_beside(path, 'pub').name}, to whoever "
        f"relies on it with --ct-logs-key {spki_pin(key.public_key)}"
    )
    return DONE


def _read(path: Path) -> LogList:
    return LogList.parse(read_file(path, "the list of logs", LARGEST))


def _beside(path: Path, end: str) -> Path:
    return path.with_name(f"{path.name}.{end}")
