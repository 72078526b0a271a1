from __future__ import annotations

import pytest

from indexer import TEMPLATE_SETS, TemplateError, resolve_templates


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_every_set_has_distinct_sentences_with_a_place_for_the_label(name):
    templates = resolve_templates(name)
    assert templates.name == name
    assert len(set(templates.texts)) == len(templates.texts)
    assert all("red {car}" in prompt for prompt in templates.prompts("red {car}"))


def test_the_sets_of_the_clip_paper_are_open_clips():
    assert len(resolve_templates("openai7").texts) == 7
    eighty = resolve_templates("openai80").texts
    assert len(eighty) == 80
    assert "a bad photo of a {}." in eighty


def test_the_plain_set_is_the_label_alone():
    assert resolve_templates("plain").prompts("cat") == ("cat",)


def test_own_templates():
    templates = resolve_templates(["a {}", "{} and {}"])
    assert templates.name is None
    assert templates.prompts("cat") == ("a cat", "cat and cat")


@pytest.mark.parametrize(
    ("templates", "says"),
    [
        ("pictograms", "did you mean 'pictogram'"),
        ("a photo of a cat", "own templates need {}"),
        ([], "between 1 and 1000"),
        (["a {}"] * 2, "occurs twice"),
        (["a photo"], "no {}"),
        ([3], "no {}"),
    ],
)
def test_mistakes(templates, says):
    with pytest.raises(TemplateError) as caught:
        resolve_templates(templates)
    assert says in caught.value.message
