"""The pictures of a report."""

from __future__ import annotations

from training.history import History
from training.report.plots import plot_health, to_svg


def legend_of(layers: int) -> list[str]:
    table = {f"layer{at}": {"dead": 0.1, "gradient": 1.0, "mean": 0.0} for at in range(layers)}
    figure = plot_health(History(health=[table, table]))
    to_svg(figure)  # draws; a legend that leaves no room for the curves is a warning, so an error
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_few_layers_are_named_and_of_many_the_first_and_the_last() -> None:
    assert legend_of(3) == ["layer0", "layer1", "layer2"]
    assert legend_of(60) == ["layer0", "layer59"]
