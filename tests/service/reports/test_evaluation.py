"""The page of an evaluation: everything in it, escaped, and nothing loaded."""

from __future__ import annotations

import re

from indexer.evaluation.evaluation import Bin, ClassResult, Confusion, Evaluation, Mistake
from indexer.ranking.calibration import Threshold
from service.reports.evaluation import eval_report
from tests.service.fakes import picture


def evaluation(**changed: object) -> Evaluation:
    fields = {
        "images": 3,
        "skipped": (("bad<1>.png", "truncated"),),
        "labels": 2,
        "categories": 1200,
        "top1": 0.75,
        "top5": 1.0,
        "ece": 0.125,
        "probability_kind": "exact",
        "coverage": (Threshold(0.9, 0.5, 0.5), Threshold(0.99, None, 0.0)),
        "classes": (ClassResult("red", 2, 3, 1.0, 0.6), ClassResult("b<i>lue", 1, 0, 0.0, None)),
        "reliability": (Bin(0.5, 0.6, 2, 0.55, 0.5),),
        "risk_coverage": ((0.5, 0.0), (1.0, 0.25)),
        "confusions": (Confusion("b<i>lue", "red", 1),),
        "mistakes": (
            Mistake("red.png", "b<i>lue", "red", 0.9),
            Mistake("gone.png", "red", "x", 0.8),
        ),
    }
    return Evaluation(**{**fields, **changed})


def test_the_page_holds_everything_escaped_and_loads_nothing(tmp_path):
    (tmp_path / "red.png").write_bytes(picture("red"))
    page = eval_report(evaluation(), title="Te<s>t", root=tmp_path, max_pixels=10_000)
    for shown in ("75.0%", "1,200", "not reached", "90%", "Te&lt;s&gt;t", "bad&lt;1&gt;.png"):
        assert shown in page, shown
    assert "<i>" not in page
    assert "b&lt;i&gt;lue answered as red, 90%" in page
    assert "(no longer there)" in page
    loaded = re.findall(r'src="([^"]{0,15})', page)
    assert loaded == ["data:image/jpeg"]
    assert page.count("<svg") == 3


def test_without_mistakes_it_says_so(tmp_path):
    nothing = evaluation(confusions=(), mistakes=(), skipped=())
    page = eval_report(nothing, title="t", root=tmp_path, max_pixels=10_000)
    assert "<p>Nothing.</p>" in page
    assert "<p>None.</p>" in page
    assert "could not be read" not in page
