"""hearthd and the servers that it is compared with."""

from .hearthd import Hearthd
from .litserve import LitServe
from .mlserver import MLServer, MLServerAlone
from .rayserve import RayServe
from .torchserve import TorchServe
from .triton import Triton

PEERS = (Triton, MLServer, MLServerAlone, TorchServe, LitServe, RayServe)
