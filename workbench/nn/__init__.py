"""Floor 2: bricks that several models use."""

from workbench.nn.mamba import Mamba, MambaState
from workbench.nn.mamba2 import Mamba2
from workbench.nn.mobius import MobiusActivation, MobiusLinear, PoincareLinear

__all__ = ["Mamba", "Mamba2", "MambaState", "MobiusActivation", "MobiusLinear", "PoincareLinear"]
