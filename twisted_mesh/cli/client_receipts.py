"""What mesh-client demands of receipts of logs, and who looks for their entries while it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pki.errors import Malformed
from twisted_mesh.cli.running import reactor
from twisted_mesh.identity.agent import Agent
from twisted_mesh.runtime.log import logger

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand
    from twisted_mesh.ct.inclusion_auditor import InclusionAuditor


def demand_of(options: dict[str, Any], state_dir: Path) -> "SctDemand | None":
    """What ``--require-sct`` and ``--ct-logs`` ask for; None where nothing is asked. Raises :class:`PkiError`."""
    said = options["require_sct"], options["ct_logs"], options["ct_logs_key"]
    if said == (None, None, None):
        if options["ct_audit"] is not None:
            raise Malformed(
                "--ct-audit is about the logs of --require-sct: say with it how many a certificate must have"
            )
        return None
    from twisted_mesh.trust.sct_options import SctOptions

    found = SctOptions.parse(*said)
    if found is None:
        return None
    demand = found.now()
    found.hold_to_newest(demand, state_dir, logger("ct"))
    return demand


def auditor_for(agent: Agent, audits: str | None, *, is_brief: bool) -> "InclusionAuditor | None":
    """What looks for the entries of whoever ``agent`` lets in, to be started; None where nobody is to look.

    ``is_brief``: it runs for seconds, so logs are asked at once, and what is left is asked by the next run.
    """
    store, wanted = agent.trust_store, agent.wanted
    if wanted.demand is None:
        return None
    from pki.ct.log_list import LogList
    from twisted_mesh.taps.ct_audit import auditor_of, said_off

    if audits == "off":
        said_off(logger("ct"))
        return None
    auditor = auditor_of(
        reactor,
        wanted.state_dir,
        f"mesh-client {wanted.spiffe_id}",
        lambda: store.trust.demand.logs if store.trust.demand else LogList(()),
        requires_pq=wanted.requires_pq,
        is_brief=is_brief,
    )
    store.follow_receipts(auditor.saw)
    return auditor
