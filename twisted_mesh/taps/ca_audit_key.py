"""The key that signs the audit log's checkpoints: in a file, or where --audit-key says."""

from functools import partial

from pki.audit.log import LogKey, LogSigner, StoredLogKey
from pki.keys import KeyAlgorithm
from twisted_mesh.ca.key_drawing import KeyDrawing, in_place
from twisted_mesh.keystores.spec import KeySpec
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.stores.interface import IStore
from twisted_mesh.taps.ca_options import Options

_log = logger("ca")
_NAME = "audit.key"


async def log_key(options: Options, keys: KeyFiles, stores: KeyStores, store: IStore) -> LogSigner:
    """The one that there is, whatever the options say; else one that is made. Raises :class:`pki.errors.PkiError`.

    Its name tells the store, so that no other log fits. A log never changes its key: witnesses would take it for
    another CA's.
    """
    name = f"{options['trust-domain']}/audit/{store.id[:16]}"
    spec: KeySpec | None = options["audit-key"]
    if not store.is_kept:
        return LogKey.generate(name)
    if keys.exists(_NAME):
        is_elsewhere = keys.is_elsewhere(_NAME)
        if spec is not None and spec.is_stored and not is_elsewhere:
            _log.warn(
                "--audit-key is not followed: the audit log of this CA is signed by the key in {path}, and witnesses "
                "know that one. A log that begins anew is signed by the other",
                event="audit-key-stays",
                path=str(keys.path(_NAME)),
            )
        if is_elsewhere:
            return StoredLogKey(name, keys.kept(_NAME))
        key = keys.load(_NAME, partial(LogKey.from_pem, name))
        keys.seal()
        return key
    if spec is None or not spec.is_stored:
        key = LogKey.generate(name)
        keys.write(_NAME, key)
        return key
    drawing = KeyDrawing(keys, options["trust-domain"], stores, in_place)
    return StoredLogKey(name, await drawing.draw(_NAME, spec, "audit", _tell_generating))


def _tell_generating(algorithm: KeyAlgorithm) -> None:
    _log.info(
        "Generating the audit log's key pair ({algorithm})...",
        event="audit-generating",
        algorithm=algorithm.label,
    )
