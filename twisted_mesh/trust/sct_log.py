"""What is said of receipts of logs (SCTs): how many are demanded and of whom, and that nobody can have as many."""

from twisted.logger import Logger

from pki.ct.log_list import LogList
from pki.ct.receipt import SctDemand


def _named(logs: LogList) -> str:
    return ", ".join(log.description for log in logs.logs) or "none"


def begin(demand: SctDemand, log: Logger) -> None:
    """That is demanded from now on."""
    log.info(
        "Certificates are believed with receipts (SCTs) of {required} of these logs: {logs}",
        event="scts-required",
        required=demand.required,
        logs=_named(demand.logs),
    )
    lacking(demand, log)


def narrowed(before: SctDemand, now: SctDemand, log: Logger) -> None:
    """The CA has withdrawn logs that were known here."""
    gone = tuple(one for one in before.logs.logs if now.logs.log_of(one.log_id) is None)
    log.warn(
        "The CA has withdrawn logs whose receipts (SCTs) do not count any more: {logs}",
        event="logs-withdrawn",
        logs=_named(LogList(gone)),
    )
    lacking(now, log)


def lacking(demand: SctDemand, log: Logger) -> None:
    """Say where no certificate can have as many receipts as are demanded."""
    if len(demand.logs.logs) < demand.required:
        log.error(
            "Receipts (SCTs) of {required} logs are demanded, and those of {logs} count: nobody can connect. Put "
            "another log into the file of --ct-logs, or demand fewer",
            event="scts-unmeetable",
            required=demand.required,
            logs=_named(demand.logs),
        )


def lines(demand: SctDemand | None) -> list[str]:
    """What is demanded, in words that can be compared."""
    if demand is None:
        return []
    return [f"{log.description} ({log.state})" for log in demand.logs.logs]
