"""What ``mesh-ctl ct verify`` does: evidence against a log, judged by what the log itself has signed."""

from pathlib import Path

from pki.ct.document import LARGEST
from pki.ct.evidence import parse_evidence
from pki.errors import PkiError
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.ct_sources import logs_of
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.state.directory import read_file


def verify(path: Path, list_path: Path, key: str | None, *, as_json: bool) -> int:
    """``ct verify``; its exit status."""
    logs = logs_of(list_path, key)
    data = read_file(path, "the evidence", LARGEST)
    origin = None
    try:
        evidence = parse_evidence(data)
        origin = evidence.origin
        found = evidence.verify(logs)
    except PkiError as error:
        if as_json:
            output.put_json(
                {"proven": False, "log": origin, "code": error.code, "detail": str(error)}
            )
        else:
            output.put(f"It proves nothing: {error}")
        return REFUSED
    if as_json:
        output.put_json({"proven": True, "log": origin, "code": found.code, "detail": str(found)})
    else:
        output.put(f"{found.code}: {found}")
        output.put("That is proven by what the log has signed itself.")
    return DONE
