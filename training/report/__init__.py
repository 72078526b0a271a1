"""Pictures and the HTML report."""

from training.report.html import in_what_ranking, on_what_images, report_html, write_report
from training.report.plots import checklist_figure, plot_checklist, plot_health, plot_history

__all__ = [
    "checklist_figure",
    "in_what_ranking",
    "on_what_images",
    "plot_checklist",
    "plot_health",
    "plot_history",
    "report_html",
    "write_report",
]
