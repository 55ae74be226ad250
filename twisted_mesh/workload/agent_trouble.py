"""What keeps an agent from having anything signed for its workloads."""

from pki.codes import Code
from pki.errors import PkiError


class AgentRevoked(PkiError):
    """The agent's own certificate is revoked."""

    code = Code.REVOKED


class AgentExpired(PkiError):
    """The agent's own certificate has ended."""

    code = Code.EXPIRED


class AgentEnded(PkiError):
    """The CA says that this is no agent of its any more."""

    code = Code.NOT_AUTHORIZED


class AskingBroke(PkiError):
    """A bug of ours; it is asked again."""

    code = Code.INTERNAL


class ServesNoAgents(PkiError):
    """The CA is of a version before agents."""

    code = Code.CA_REFUSED
