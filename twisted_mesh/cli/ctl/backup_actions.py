"""What ``mesh-ctl backup`` does. No CA is asked: it works on files."""

import os
from contextlib import closing, suppress
from pathlib import Path

import msgspec
from attrs import frozen

from pki.errors import PkiError
from pki.svid.pin import Fingerprint
from pki.validity import rfc3339
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.backup import creation, record
from twisted_mesh.backup.archive import ISSUING_KEY, ROOT, Archive, Manifest, Signature
from twisted_mesh.backup.loss import Loss
from twisted_mesh.backup.provenance import demand_known_root, judge, sign_here
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.backup_keys import missing_keys
from twisted_mesh.cli.ctl.key_stores import NOTHING_NAMED, Named
from twisted_mesh.cli.ctl.options import Reach
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.state.directory import AlreadyRunning, StateDirectory, StateError
from twisted_mesh.state.environment import BadEnvironment, user_state_dir
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.state.passphrase import read_passphrase

#: So many of the things that the audit log does not vouch for are named.
_DOUBTS_TOLD = 20


@frozen
class Accepted:
    """What is restored all the same."""

    loss: bool = False
    unsigned: bool = False
    unvouched: bool = False


def create(state: Path, path: Path, passphrase_file: Path | None, *, as_json: bool) -> int:
    """``backup create``; the exit status, as below."""
    passphrase = read_passphrase(passphrase_file)
    created = creation.create(
        StateDirectory(state),
        path,
        wall_clock(),
        lambda manifest: _signature(state, manifest, passphrase),
    )
    manifest = created.manifest
    _warn(manifest)
    if created.signature is None:
        output.say(
            "WARNING: it is NOT SIGNED: nothing proves later that this CA made it, and a restore wants "
            "--accept-unsigned; make it while the CA runs, or give --key-passphrase-file"
        )
    if as_json:
        output.put_json({**_told(manifest), "signed": created.signature is not None})
    else:
        output.put(
            f"{path}: {output.counted(manifest.certificates, 'certificate')}, {manifest.revoked:,} revoked, "
            f"{output.counted(manifest.log_size, 'act')}, {output.counted(len(manifest.keys), 'key')}"
        )
    return DONE


def _signature(state: Path, manifest: Manifest, passphrase: bytes | None) -> Signature | None:
    """With the keys, where they can be read here; else of the running CA."""
    if ISSUING_KEY in manifest.elsewhere:
        return _asked_for(state, manifest.digest)
    if passphrase is not None or not manifest.encrypted:
        checkpoint = record.checkpoint_of(manifest.checkpoint)
        keys = KeyFiles(StateDirectory(state).private, passphrase)
        return sign_here(keys, checkpoint.origin if checkpoint else "", manifest.digest)
    return _asked_for(state, manifest.digest)


def _asked_for(state: Path, digest: str) -> Signature | None:
    from twisted_mesh.cli.ctl.session import administer

    found: list[Signature] = []

    async def ask(administration: Administration) -> int:
        try:
            answer = await administration.sign_backup(digest)
        except PkiError as error:
            output.say(f"the CA does not sign the backup: {error}")
        else:
            found.append(Signature(answer.log_key, answer.signature))
        return DONE

    reach = Reach(
        ca_url=None,
        ca_file=None,
        ca_fingerprint=None,
        ca_user=None,
        svid=None,
        state_dir=str(state),
        trust_domain="mesh.local",
        timeout="10s",
    )
    try:
        administer(reach, ask)
    except PkiError as error:
        output.say(f"the CA does not sign the backup: {error}")
    return found[0] if found else None


def show(path: Path, *, as_json: bool) -> int:
    """``backup show``."""
    with closing(Archive.open(path)) as archive:
        chain = archive.read()
    manifest, signature = archive.manifest, archive.signature
    demand_known_root(manifest, chain[ROOT], None, None)
    judge(manifest, signature, chain, is_root_known=True, accept_unsigned=True)
    if as_json:
        output.put_json({**_told(manifest), "signed": signature is not None})
        return DONE
    checkpoint = record.checkpoint_of(manifest.checkpoint)
    log = f"{manifest.log_size:,} acts"
    if checkpoint is not None:
        log += f", signed up to {checkpoint.size:,} at {rfc3339(checkpoint.at)}"
    output.put_facts(
        {
            "made": f"{manifest.created_at} by twisted-mesh {manifest.version}",
            "root": f"sha256:{manifest.root}",
            "signed": "by the CA of that root" if signature else "NOT SIGNED",
            "certificates": f"{manifest.certificates:,}, {manifest.revoked:,} of them revoked",
            "audit log": log,
            "files": [
                f"{member.name} ({member.size:,} bytes{_sealing(member.name, manifest)})"
                for member in manifest.members
            ],
        }
    )
    _warn(manifest)
    return DONE


def restore(
    path: Path,
    state_dir: Path,
    accepted: Accepted,
    *,
    fingerprint: str | None,
    named: Named = NOTHING_NAMED,
    dry_run: bool,
    as_json: bool,
) -> int:
    """``backup restore``."""
    pin = Fingerprint.parse(fingerprint) if fingerprint else None
    state = StateDirectory(state_dir)
    _demand_owner(state)
    with closing(Archive.open(path)) as archive:
        state.prepare()
        try:
            state.lock()
        except AlreadyRunning as error:
            output.say(f"{error}; a backup is restored while no CA runs")
            return REFUSED
        try:
            restoration = Restoration(state, archive, wall_clock(), pin, accepted.unsigned)
            return _restore(restoration, accepted, named, dry_run=dry_run, as_json=as_json)
        finally:
            state.unlock()


def _demand_owner(state: StateDirectory) -> None:
    """Root's files would be of no use to the CA, and root has no business in another user's directory."""
    try:
        owner = state.ca.stat().st_uid
    except OSError:
        return
    if owner != os.geteuid():
        raise StateError(f"{state.ca} belongs to the user with uid {owner}: restore as that user")


def _restore(
    restoration: Restoration, accepted: Accepted, named: Named, *, dry_run: bool, as_json: bool
) -> int:
    state = restoration.state
    if restoration.resume(only_look=dry_run):
        if dry_run:
            said = "this backup is half in place already: run the same without --dry-run, which finishes it"
            _put(restoration, "would restore", as_json=as_json, said=said)
            return DONE
        _put(restoration, "restored", as_json=as_json, said="the interrupted restore is finished")
        return DONE
    try:
        loss = restoration.prepare(sorted({home / "witness" for home in (state.root, *_home())}))
        for sentence in _sentences(loss, restoration.manifest):
            output.say(sentence)
        _tell_doubts(restoration)
        wanted = _words_wanted(restoration, loss, accepted)
        wanted += missing_keys(restoration.elsewhere, named, state.private)
        if dry_run or wanted:
            outcome = "would restore" if dry_run else "refused"
            said = "" if dry_run else f"nothing was restored: {', and '.join(wanted)}"
            _put(restoration, outcome, as_json=as_json, said=said)
            return DONE if dry_run and not _words_wanted(restoration, loss, _NOTHING) else REFUSED
        restoration.perform(f"unix:uid:{os.getuid()}")
    finally:
        restoration.abandon()
    said = "restored; start the CA now"
    if restoration.aside is not None and restoration.aside.exists():
        said = f"restored; what was there before is in {restoration.aside}; start the CA now"
    _put(restoration, "restored", as_json=as_json, said=said)
    return DONE


def _home() -> list[Path]:
    """Where the user's own state is; nowhere for a user without a home."""
    with suppress(BadEnvironment):
        return [user_state_dir()]
    return []


#: What is accepted where nothing was said.
_NOTHING = Accepted()


def _words_wanted(restoration: Restoration, loss: Loss, accepted: Accepted) -> list[str]:
    wanted = []
    if not (accepted.loss or loss.is_bearable):
        wanted.append("to accept what is lost, add --accept-loss")
    vouched = restoration.vouched
    if vouched is not None and vouched.doubts and not accepted.unvouched:
        wanted.append("to accept what the audit log does not vouch for, add --accept-unvouched")
    return wanted


def _tell_doubts(restoration: Restoration) -> None:
    if restoration.provenance is not None and not restoration.provenance.is_signed:
        output.say("WARNING: the backup is NOT SIGNED: whoever had it in hand may have written it")
    elif restoration.manifest.plain_keys:
        output.say(
            "the backup is signed with a key that lies in it unencrypted: whoever has read it can have changed it"
        )
    vouched = restoration.vouched
    if vouched is None:
        return
    for doubt in vouched.doubts[:_DOUBTS_TOLD]:
        output.say(f"not vouched for: {doubt.detail} ({doubt.code})")
    if len(vouched.doubts) > _DOUBTS_TOLD:
        output.say(f"not vouched for: {len(vouched.doubts) - _DOUBTS_TOLD:,} more")


def _put(restoration: Restoration, outcome: str, *, as_json: bool, said: str) -> None:
    if as_json:
        output.put_json(
            {
                "outcome": outcome,
                "backup": _told(restoration.manifest),
                "loss": None if restoration.loss is None else _loss(restoration.loss),
                "signed": restoration.archive.signature is not None,
                "doubts": []
                if restoration.vouched is None
                else [
                    {"code": doubt.code, "detail": doubt.detail}
                    for doubt in restoration.vouched.doubts
                ],
            }
        )
    elif outcome == "restored":
        output.put(f"{restoration.state.root}: {said}")
    elif said:
        output.say(said)


def _sentences(loss: Loss, manifest: Manifest) -> list[str]:
    """What a person must know before a restore."""
    since = f"since the backup of {manifest.created_at}"
    told = []
    if loss.lost is None:
        told.append(f"what was issued {since} cannot be counted: {loss.why_not}")
    else:
        lost = loss.lost
        if not lost.is_same_log:
            told.append(
                "the record here is of another time of this CA: it was restored or made anew since the backup"
            )
        if lost.certificates:
            told.append(
                f"{output.counted(lost.certificates, 'certificate')} issued {since} would be lost, {lost.living:,} of "
                "them still good: nobody could list or revoke those"
            )
        if lost.revocations:
            count = output.counted(len(lost.revocations), "revocation")
            told.append(f"{count} made {since} would be carried over: what is revoked stays so")
    if loss.acts:
        last = loss.backup.checkpoint
        signed = f", whose log was last signed at {rfc3339(last.at)}" if last else ""
        witness = ""
        if loss.witnessed is not None:
            witness = f"; a witness saw {loss.witnessed.size:,} at {rfc3339(loss.witnessed.at)}"
        told.append(
            f"{output.counted(loss.acts, 'entry', 'entries')} of the audit log would be lost {since}{signed}{witness}"
        )
    if not loss.is_known:
        told.append(
            "nobody here has seen a later log of this CA: whatever happened after the backup is lost, and its log "
            "begins a new epoch"
        )
    if loss.backup.entries and not (loss.lost is not None and loss.lost.is_successor):
        told.append(
            f"registration entries that were deleted {since} would come back: look through them (mesh-ctl entry list)"
        )
    if "ca/private/root.key" in manifest.keys:
        told.append("the backup brings the root's key along: detach it again if it was detached")
    return told


def _warn(manifest: Manifest) -> None:
    if manifest.elsewhere:
        names = ", ".join(name.rpartition("/")[2] for name in manifest.elsewhere)
        output.say(
            f"{names} in it {'says' if len(manifest.elsewhere) == 1 else 'say'} where the key is, which is not in it: "
            "see that its token or signer has a backup of its own"
        )
    if manifest.plain_keys:
        names = ", ".join(name.rpartition("/")[2] for name in manifest.plain_keys)
        output.say(
            f"WARNING: {names} in it {'is' if len(manifest.plain_keys) == 1 else 'are'} NOT ENCRYPTED: whoever reads "
            "this file can issue in the CA's name; keep it as you would keep the keys"
        )


def _sealing(name: str, manifest: Manifest) -> str:
    if name not in manifest.keys:
        return ""
    if name in manifest.elsewhere:
        return ", THE KEY IS ELSEWHERE"
    return ", encrypted" if name in manifest.encrypted else ", NOT ENCRYPTED"


def _told(manifest: Manifest) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(manifest)
    return {**told, "plain": manifest.plain_keys}


def _loss(loss: Loss) -> dict[str, object]:
    lost = loss.lost
    return {
        "known": loss.is_known,
        "bearable": loss.is_bearable,
        "certificates": lost.certificates if lost else None,
        "living": lost.living if lost else None,
        "entries": loss.acts if loss.is_known else None,
        "carried_over": len(lost.revocations) if lost else None,
        "witnessed": None
        if loss.witnessed is None
        else {"size": loss.witnessed.size, "time": rfc3339(loss.witnessed.at)},
    }
