from __future__ import annotations


def test_list_all_or_some(shell):
    ids = shell.json("models", "list")
    assert ids[0] == "everyday"
    assert "ViT-B-32/laion2b_s34b_b79k" in ids
    assert set(shell("models", "list", "SIGLIP").split()) < set(ids)


def test_show(shell, tiny_clip_dir):
    facts = shell.json("models", "show", f"local-dir:{tiny_clip_dir}")
    assert (facts["dim"], facts["image_size"], facts["context_length"]) == (32, [32, 32], 77)
    assert facts["weights"] == str(tiny_clip_dir / "open_clip_model.safetensors")


def test_pull_of_what_is_here(shell, tiny_clip_dir):
    assert "fingerprint" in shell("models", "pull", f"local-dir:{tiny_clip_dir}")


def test_a_name_that_does_not_exist_gets_the_closest(shell):
    assert "laion2b_s34b_b79k" in shell.fails("models", "show", "ViT-B-32/laion2b_s34b_b97k")
    assert "no folder" in shell.fails("models", "pull", "local-dir:/nowhere")
