"""Which node is linked to which, and where a session's packets go. Sans-IO: facts in, links to use out.

Every node knows the members (from the manager) and has a link to each: of two nodes, the one whose name is smaller dials. A session's
packets go over the links to all nodes that said they have readers of it, and from there to their readers only: one copy per inter-node
link, and no packet is passed on by the node that received it.
"""

from wire.control import Membership, NodeInfo
from wire.ids import SessionId


class Overlay:
    """Owned by the relay."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.epoch = -1
        self.members: dict[str, NodeInfo] = {}
        self.linked: set[str] = set()
        self.ours: set[SessionId] = set()  # sessions of which this node has readers

    def learn(self, membership: Membership) -> bool:
        """The live relays. False if it is older than what is known. A manager that was set up anew counts from the beginning: the first
        membership of each link to a manager is `force`d by forgetting the epoch (`forget_epoch`)."""
        if membership.epoch <= self.epoch:
            return False
        self.epoch = membership.epoch
        self.members = {info.node: info for info in membership.nodes if info.node != self.me}
        return True

    def forget_epoch(self) -> None:
        self.epoch = -1

    def to_dial(self) -> list[NodeInfo]:
        """Members that this node calls and has no link to."""
        return [info for node, info in self.members.items() if node > self.me and node not in self.linked]

    def calls_us(self, node: str) -> bool:
        """Whether it is the other one's part to call."""
        return node < self.me

    def link_up(self, node: str) -> None:
        self.linked.add(node)

    def link_down(self, node: str) -> None:
        self.linked.discard(node)
