"""report.html: one file that shows the results of a run. It loads nothing from the network and runs no script."""

from drpo.report.write import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "write_report"]
