"""``--policy``: rules that whoever is let in must meet besides, read again at SIGHUP."""

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

import msgspec

from twisted_mesh.taps.pin_options import PinOptions
from twisted_mesh.taps.reread import Reread
from twisted_mesh.trust.store import TrustStore

if TYPE_CHECKING:  # most have no policy, and load nothing of it
    from twisted_mesh.trust.peer_policy import PeerPolicy

_OPTION = "policy"


class PolicyOptions(PinOptions):
    """Options of a service that asks a policy about its peers."""

    files: ClassVar[tuple[str, ...]] = (*PinOptions.files, _OPTION)
    optParameters: ClassVar = [
        [
            _OPTION,
            None,
            None,
            "a file or directory of rules that each connection must meet besides; read again at SIGHUP",
        ],
    ]

    def postOptions(self) -> None:
        """Turn words into values. Raises :class:`PkiError` and :class:`usage.UsageError` in one sentence."""
        path = self[_OPTION]
        # First: what a worker is to be given is read with the rest.
        self[_OPTION] = self._from_here(path, "--policy") if path else None
        super().postOptions()

    def policy_actions(self) -> Collection[str]:
        """What the service does that a policy is asked about."""
        return ("accept",)

    def read_file_of(self, option: str) -> bytes:
        """See :class:`ServiceOptions`: the policy's files are one text."""
        if option == _OPTION:
            from twisted_mesh.state.policy_files import policy_texts

            return msgspec.json.encode(dict(policy_texts(self[_OPTION])))
        return super().read_file_of(option)

    def read_policy(self) -> "PeerPolicy | None":
        """The policy as it is written now; None without one. Raises :class:`PkiError`."""
        if self[_OPTION] is None:
            return None
        from pki.rules.facts import RuleAction
        from pki.rules.rules_file import read_rules
        from twisted_mesh.trust.peer_policy import PeerPolicy

        texts = msgspec.json.decode(self.text_of(_OPTION), type=dict[str, str])
        return PeerPolicy(read_rules(texts), frozenset(map(RuleAction, self.policy_actions())))

    def reread_policy(self, store: TrustStore) -> list[Reread]:
        """How a service reads it again, and judges everybody by it who is connected."""

        async def again() -> str:
            before, policy = store.trust.policy, self.read_policy()
            if before is None or policy is None or policy.rules.digest == before.rules.digest:
                return ""
            policy.rules.demand_denials_of(before.rules)
            store.govern(policy)
            return f"{len(policy.rules.rules)} rules, {policy.rules.digest}"

        return [Reread(f"--policy {self[_OPTION]}", again)] if self[_OPTION] else []
