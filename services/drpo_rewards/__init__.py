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

from drpo_rewards.api.contract import PairOptions
from drpo_rewards.api.geneval import GenevalSpec
from drpo_rewards.client import AsyncRankingClient, Group, RankingClient
from drpo_rewards.errors import RewardsError
from drpo_rewards.operations.rank import RankResponse

__all__ = ["AsyncRankingClient", "GenevalSpec", "Group", "PairOptions", "RankResponse", "RankingClient", "RewardsError"]
