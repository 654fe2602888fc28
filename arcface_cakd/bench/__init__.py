"""What things cost, as ratios: ours to their parts, to arcface_torch and to others, on this machine."""

from arcface_cakd.bench.errors import BenchError
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import Ratio, Times, take_turns

__all__ = ["BenchError", "Ratio", "Report", "Times", "take_turns"]
