"""report.html: one file that shows what a run came to. It asks nothing of the network and runs no script."""

from drpo.report.write import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "write_report"]
