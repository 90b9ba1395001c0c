"""The ranking contract, its client, and the rewards behind it.

api         what travels and how it is checked
operations  the calls of the service, one file each
wire        the contract as protobuf
client      who calls the service
ranking     how scores become an order
settings    how settings are read from YAML
rewards     what scores
serving     the service on Ray Serve
cluster     how Ray is started and called
cli         the command line
"""

TYPE_CHECKING = False  # typing's, which is not imported yet

if TYPE_CHECKING:
    from drpo_rewards.api.contract import PairOptions
    from drpo_rewards.api.geneval import GenevalSpec
    from drpo_rewards.client import AsyncRankingClient, Group, RankingClient
    from drpo_rewards.errors import RewardsError
    from drpo_rewards.operations.rank import RankResponse

__all__ = ["AsyncRankingClient", "GenevalSpec", "Group", "PairOptions", "RankResponse", "RankingClient", "RewardsError"]

_HOMES = {
    "PairOptions": "api.contract",
    "GenevalSpec": "api.geneval",
    "AsyncRankingClient": "client",
    "Group": "client",
    "RankingClient": "client",
    "RewardsError": "errors",
    "RankResponse": "operations.rank",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used: the command line looks for files that hide modules before it imports any."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
