from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import LayoutError, LayoutOptions
from indexer.vectors.layout import (
    Layout,
    Measured,
    Plan,
    Reach,
    count_lists,
    ivf_bytes,
    plan_layout,
)


def test_exact_while_it_is_fast_then_lists():
    assert plan_layout(50_000, 512, LayoutOptions()) == Plan("flat", "fp32")
    assert plan_layout(50_001, 512, LayoutOptions()) == Plan("ivf", "fp16", 1024)
    assert plan_layout(1_000_000, 512, LayoutOptions()) == Plan("ivf", "fp16", 4096)


def test_memory_decides_how_numbers_are_kept():
    assert plan_layout(1_000_000, 512, LayoutOptions(memory_mb=1100)).storage == "fp16"
    assert plan_layout(1_000_000, 512, LayoutOptions(memory_mb=700)).storage == "sq8"
    # A small index that may not take what exact search takes is quantised too.
    assert plan_layout(40_000, 512, LayoutOptions(memory_mb=50)).storage == "fp16"
    with pytest.raises(LayoutError, match=r"need at least 53. MB; 300 MB are allowed"):
        plan_layout(1_000_000, 512, LayoutOptions(memory_mb=300))


@pytest.mark.parametrize("options", [{"recall": 0}, {"recall": 1.1}, {"memory_mb": 0}])
def test_options_out_of_range(options):
    with pytest.raises(LayoutError):
        LayoutOptions(**options)


@given(st.integers(1, 50_000_000))
def test_lists_are_a_power_of_two_with_enough_vectors_each(rows):
    lists = count_lists(rows)
    assert lists & (lists - 1) == 0
    assert lists == 1 or rows / lists >= 25


@given(st.integers(1, 3_000_000), st.integers(8, 1024), st.floats(1, 10_000))
def test_no_plan_exceeds_its_budget(rows, dim, budget):
    try:
        plan = plan_layout(rows, dim, LayoutOptions(memory_mb=budget))
    except LayoutError:
        assert rows * ivf_bytes(rows, dim, "sq8", count_lists(rows)) > budget * 1e6
        return
    if plan.type == "flat":
        assert rows * dim * 4 <= budget * 1e6
    else:
        assert rows * ivf_bytes(rows, dim, plan.storage, plan.lists) <= budget * 1e6


def test_a_layout_comes_back_from_json():
    layout = Layout(
        "ivf",
        "sq8",
        530.5,
        exact_query_ms=1.5,
        build_seconds=2.5,
        lists=8,
        trained_on=100,
        target_recall=0.99,
        reaches=(Reach(0.8, 2, 4), Reach(0.1, 4, 8)),
        measured=(Measured("near", 10, 0.995, None, 0.1),),
    )
    assert Layout.from_json(json.loads(json.dumps(dataclasses.asdict(layout)))) == layout
