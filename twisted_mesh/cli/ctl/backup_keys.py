"""Whether the keys that a backup only refers to are where it says: looked at before anything is restored."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pki.errors import PkiError
from pki.keys import KeyReference
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.key_stores import Named, with_stores
from twisted_mesh.cli.status import DONE
from twisted_mesh.keystores.stores import KeyStores


def missing_keys(elsewhere: Mapping[str, KeyReference], named: Named, directory: Path) -> list[str]:
    """What is to be done before such a backup is of use, a sentence each; nothing where no store was named to ask."""
    if not elsewhere:
        return []
    if not named.uris:
        for name, reference in elsewhere.items():
            output.say(
                f"the key of {PurePosixPath(name).name} is not in this backup but in {reference.uri}: the CA wants it "
                "named, by --key-store or the option for such keys; named here too, it is looked for now"
            )
        return []
    found: list[str] = []

    async def look(stores: KeyStores) -> int:
        for name, reference in elsewhere.items():
            try:
                there = await stores.store_of(reference).find(reference.uri)
            except PkiError as error:
                found.append(f"{PurePosixPath(name).name}: {error}")
                continue
            if there.reference.key_id != reference.key_id:
                found.append(
                    f"{PurePosixPath(name).name}: {reference.uri} is another key now: use a backup of a later time"
                )
        return DONE

    _ = with_stores(named, directory, look)
    return found
