"""What things cost on this machine, as ratios: to their parts, to arcface_torch, to others."""

from arcface_cakd.bench.errors import BenchError
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import Ratio, Times, take_turns

__all__ = ["BenchError", "Ratio", "Report", "Times", "take_turns"]
