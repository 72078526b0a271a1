"""Shared prefixes: every token sequence is walked exactly, none twice within a chunk."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.text.prefix_tree import chunks, shared_lengths, sort_texts

END = 9


def as_arrays(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Texts of tokens 0..8, each closed by END, padded with zeros as the tokenizer does."""
    closed = [[*text, END] for text in texts]
    lengths = np.array([len(text) for text in closed])
    tokens = np.zeros((len(closed), lengths.max() + 2), np.int64)
    for row, text in enumerate(closed):
        tokens[row, : len(text)] = text
    return tokens, lengths


def test_sharing_is_counted() -> None:
    tokens, lengths = as_arrays([[1, 2, 3], [1, 2, 4], [1, 2, 3], [5]])
    order, places = sort_texts(tokens, lengths)
    assert len(order) == 3
    assert places.tolist() == [0, 1, 0, 2]
    assert shared_lengths(tokens[order], lengths[order]).tolist() == [0, 2, 0]
    (chunk,) = chunks(tokens[order], lengths[order], max_nodes=100)
    assert len(chunk.tokens) == 4 + 2 + 2


texts = st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=25)


@given(texts, st.integers(1, 40))
def test_each_path_spells_its_text(drawn: list[list[int]], max_nodes: int) -> None:
    tokens, lengths = as_arrays(drawn)
    order, places = sort_texts(tokens, lengths)
    assert [drawn[row] for row in order[places]] == drawn
    sorted_tokens, sorted_lengths = tokens[order], lengths[order]
    seen: list[int] = []
    for chunk in chunks(sorted_tokens, sorted_lengths, max_nodes=max_nodes):
        assert len(chunk.tokens) <= max_nodes or sum(len(g.texts) for g in chunk.groups) == 1
        next_node = 0
        prefixes = set()
        for group in chunk.groups:
            assert group.first == next_node
            next_node = group.last
            for row, path in zip(group.texts, group.path, strict=True):
                length = sorted_lengths[row]
                assert path.shape == (length,)
                assert chunk.tokens[path].tolist() == sorted_tokens[row, :length].tolist()
                assert chunk.positions[path].tolist() == list(range(length))
                assert path[-1] in range(group.first, group.last)
                prefixes |= {tuple(sorted_tokens[row, : n + 1]) for n in range(length)}
                seen.append(int(row))
        assert next_node == len(chunk.tokens) == len(prefixes)
    assert sorted(seen) == list(range(len(order)))


def test_one_text_is_a_chunk_however_long() -> None:
    tokens, lengths = as_arrays([[1] * 30, [2] * 30])
    assert len(list(chunks(tokens, lengths, max_nodes=5))) == 2


def test_a_text_that_another_continues_keeps_a_node_of_its_own() -> None:
    """Cut texts can lack an end token: then one may begin another."""
    tokens = np.array([[1, 2, 0], [1, 2, 3]])
    lengths = np.array([2, 3])
    order, _ = sort_texts(tokens, lengths)
    assert order.tolist() == [0, 1]
    (chunk,) = chunks(tokens[order], lengths[order], max_nodes=99)
    assert len(chunk.tokens) == 3
