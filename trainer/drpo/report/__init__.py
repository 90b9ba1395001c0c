"""Write report.html, one file with the results of a run, and pages that compare runs.

They load nothing from the network and run no script.

Files:
    content    what the report shows, read from a run's folder
    watched    the evaluations during training: the strip of pictures, the guard metrics
    pictures   a picture as a part of the page
    scale      how scores are written and placed on an axis
    figures    the training curves
    write      fills the template report.html.j2
    overview   what a run is at, in a few words
    compare    several runs on one page
"""

from drpo.report.content import format_duration
from drpo.report.write import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "format_duration", "write_report"]
