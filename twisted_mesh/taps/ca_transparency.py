"""The logs of a CA as its options have them, put together; nothing is asked yet."""

from pki.ct.log_list import Log
from pki.errors import Malformed
from twisted_mesh.ca import meters
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.transparency.log_watch import LogWatch
from twisted_mesh.ca.transparency.quorum import Demands, demand_quorum, quorum_of
from twisted_mesh.ca.transparency.receipts import Receipts, WhenAway
from twisted_mesh.ca.transparency.standing import LogDoor, LogStanding
from twisted_mesh.ca.transparency.submitter import publish_pin, submitter
from twisted_mesh.ca.transparency.transparency import Transparency
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.taps.ca_options import Options
from twisted_mesh.taps.reread import Reread, difference
from twisted_mesh.trust.store import TrustStore

_log = logger("ca")


def transparency_of(  # noqa: PLR0917
    options: Options,
    state: StateDirectory,
    keys: KeyFiles,
    reactor: IReactor,
    current: CurrentAuthorities,
    demands: Demands,
) -> Transparency | None:
    """None where no log is named. Raises :class:`pki.errors.PkiError` for bad files, and for too few logs."""
    asked = options["logs"]
    if not asked:
        demand_quorum(0, (), demands)
        return None
    # A CA without logs loads no client for them.
    from twisted_mesh.ct.log_client import LogClient

    own = submitter(keys, options["trust-domain"], wall_clock())
    requires_pq, timeout = bool(options["require-pq"]), options["ct-timeout"]

    def door(log: Log) -> LogDoor:
        return LogClient(log, reactor, own, timeout, requires_pq)

    logs = asked.read(wall_clock())
    quorum = quorum_of(options["ct-quorum"], len(logs))
    demand = options["sct-demand"]
    options.hold_to_newest(demand)
    if demand is not None and quorum < demand.required:
        raise Malformed(
            f"certificates get SCTs of {quorum} logs (--ct-quorum), and --require-sct demands those of "
            f"{demand.required}: nobody could call this CA; raise the one or lower the other"
        )
    demand_quorum(quorum, logs, demands)
    publish_pin(state.ca, own.pin)
    receipts = Receipts(
        tuple(LogStanding(door(log)) for log in logs),
        quorum,
        WhenAway(options["ct-away"]),
        timeout,
        reactor,
        wall_clock,
        meters.took_to_be_logged,
    )
    _log.info(
        "Certificates are shown to logs before they are issued, and get receipts of {quorum} of {count}: {logs}\n"
        "Logs know this CA by the key {pin}: twistd -n mesh-ctlog --accept-ca {own_id}={pin}",
        event="logs",
        count=len(logs),
        quorum=quorum,
        logs=", ".join(log.name for log in receipts.logs),
        pin=str(own.pin),
        own_id=str(options["trust-domain"].member("mesh", "ca")),
    )
    return Transparency(
        receipts,
        LogWatch(receipts, lambda: current.current.roots, reactor),
        own.pin,
        options["ct-quorum"],
        lambda: asked.read(wall_clock()),
        door,
        demands,
    )


def reread_logs(path: str, transparency: Transparency) -> Reread:
    """What SIGHUP does with the list of logs."""

    async def logs() -> str:
        before = transparency.names
        transparency.reread()
        return difference(before, transparency.names)

    return Reread(f"--ct-logs {path}", logs)


def reread_demand(options: Options, trust_store: TrustStore) -> list[Reread]:
    """What SIGHUP does with what is demanded of callers: whoever is connected is judged by it."""

    async def again() -> str:
        from twisted_mesh.trust.sct_log import lines

        before = options["sct-demand"]
        demand = options.read_demand()
        options.hold_to_newest(demand)
        options["sct-demand"] = demand
        trust_store.require_scts(demand)
        return difference(lines(before), lines(demand))

    if options.receipts is None:
        return []
    return [Reread(f"whose receipts callers need, by --ct-logs {options['ct-logs']}", again)]
