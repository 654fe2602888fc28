"""Files for deployment that are compared with torch, a module for each format."""

from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.exporting import FORMATS, ExportReport, export_model
from arcface_cakd.export.insightface_pack import InsightFacePack
from arcface_cakd.export.web_page import WebPage

__all__ = [
    "FORMATS",
    "ExportError",
    "ExportReport",
    "InsightFacePack",
    "WebPage",
    "export_model",
]
