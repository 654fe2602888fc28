"""Files for deployment that are compared with torch, a module for each format."""

from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.exporting import FORMATS, ExportReport, export_model

__all__ = ["FORMATS", "ExportError", "ExportReport", "export_model"]
