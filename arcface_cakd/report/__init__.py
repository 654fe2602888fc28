"""One page that shows runs side by side: what they were told, how they went, what they score."""

from arcface_cakd.report.errors import ReportError
from arcface_cakd.report.figures import differing_settings, figures_csv
from arcface_cakd.report.page import check_installed, write_report
from arcface_cakd.report.place import check_place
from arcface_cakd.report.runs import ReportedRun, open_runs

__all__ = [
    "ReportError",
    "ReportedRun",
    "check_installed",
    "check_place",
    "differing_settings",
    "figures_csv",
    "open_runs",
    "write_report",
]
