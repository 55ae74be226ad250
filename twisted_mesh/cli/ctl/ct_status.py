"""``mesh-ctl ct status``: which receipts of logs endpoints say that they demand."""

import base64
from pathlib import Path

from attrs import frozen
from msgspec import UnsetType

from pki.ct.log_list import LogList
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.ct_sources import logs_of
from twisted_mesh.cli.status import DONE

#: Characters of the id of a log that is known by nothing else here.
_SHOWN = 12


@frozen
class Status:
    """Asks the CA what it was told."""

    as_json: bool
    list_path: Path | None = None
    """A list by which logs are named."""
    list_key: str | None = None

    async def __call__(self, administration: Administration) -> int:
        logs = LogList(()) if self.list_path is None else logs_of(self.list_path, self.list_key)
        names = {base64.b64encode(log.log_id).decode(): log.description for log in logs.logs}
        told = (await administration.connections()).require_sct
        groups: dict[tuple[int, tuple[str, ...]], list[str]] = {}
        for one in () if isinstance(told, UnsetType) else told:
            scts = one.require_sct
            groups.setdefault((scts.required, tuple(scts.logs)), []).append(one.who)
        found = sorted(groups.items(), key=lambda group: (-group[0][0], group[0][1]))
        if self.as_json:
            output.put_json(
                [
                    {
                        "required": required,
                        "logs": [{"log_id": log, "description": names.get(log)} for log in ids],
                        "endpoints": sorted(who),
                    }
                    for (required, ids), who in found
                ]
            )
        elif not found:
            output.say("no endpoint has said that it demands receipts (--require-sct)")
        else:
            output.put_table(
                ("RECEIPTS", "LOGS", "ENDPOINTS"),
                [
                    (
                        str(required),
                        ", ".join(sorted(names.get(log, f"{log[:_SHOWN]}…") for log in ids)),
                        str(len(who)),
                    )
                    for (required, ids), who in found
                ],
            )
        return DONE
