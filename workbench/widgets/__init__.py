"""Live views for JupyterLab: isometries in JavaScript, no build step, nothing fetched from a network."""

from workbench.widgets.codes import CodeBrowser
from workbench.widgets.disk import DiskView
from workbench.widgets.names import NameBrowser

__all__ = ["CodeBrowser", "DiskView", "NameBrowser"]
