"""The transformers that scikit-learn does not have. They import NumPy, SciPy and scikit-learn only.

An exported bundle carries a copy of this folder as `preprocessing`, so that it retrains without this package.
"""

from .channels import AddChannel, PerChannel, StandardizeEach
from .columns import LARGEST_INPUT, LARGEST_OUTPUT, OutlierFlag, OverflowToMissing, RankToNormal, SignedLog, Winsorizer
from .sound import LogMel, NormalizeLoudness, TrimSilence
from .text import NormalizeText, TokenSequences

__all__ = [
    "LARGEST_INPUT",
    "LARGEST_OUTPUT",
    "AddChannel",
    "LogMel",
    "NormalizeLoudness",
    "NormalizeText",
    "OutlierFlag",
    "OverflowToMissing",
    "PerChannel",
    "RankToNormal",
    "SignedLog",
    "StandardizeEach",
    "TokenSequences",
    "TrimSilence",
    "Winsorizer",
]
