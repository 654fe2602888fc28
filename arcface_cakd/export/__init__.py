"""Files for deployment that are compared with torch, a module for each format."""

from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.exporting import (
    FORMATS,
    ExportReport,
    check_place,
    export_model,
    format_at,
)
from arcface_cakd.export.insightface_pack import InsightFacePack
from arcface_cakd.export.web_page import WebPage

__all__ = [
    "FORMATS",
    "ExportError",
    "ExportReport",
    "InsightFacePack",
    "WebPage",
    "check_place",
    "export_model",
    "format_at",
]
