from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from models.errors import UserError
from service.settings import Settings, read_settings


def test_the_environment_is_read_and_arguments_win(monkeypatch):
    monkeypatch.setenv("CLIPDEX_MODEL", "local-dir:/m")
    monkeypatch.setenv("CLIPDEX_DATA", "/d")
    settings = read_settings(data=Path("/other"), port=None)
    assert (settings.model, settings.data, settings.port) == ("local-dir:/m", Path("/other"), 8000)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().port = 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "http", "CLIPDEX_PORT"),
        ("port", "70000", "CLIPDEX_PORT"),
        ("precision", "fp8", "CLIPDEX_PRECISION"),
        ("max_batch", "0", "CLIPDEX_MAX_BATCH"),
        ("queue_size", "3", "queue_size (3) must hold one request's max_images"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(monkeypatch, name, value, said):
    monkeypatch.setenv(f"CLIPDEX_{name.upper()}", value)
    with pytest.raises(UserError, match=r"^[^\n]*$") as raised:
        read_settings()
    assert said in raised.value.message


def test_an_unknown_argument_is_refused():
    with pytest.raises(UserError, match="CLIPDEX_COLOUR"):
        read_settings(colour="red")


def test_an_unknown_variable_is_one_line_with_the_closest_name(monkeypatch):
    monkeypatch.setenv("CLIPDEX_MODLE", "x")
    with pytest.raises(UserError, match=r"CLIPDEX_MODLE; the closest name is CLIPDEX_MODEL$"):
        read_settings()


def test_what_kubernetes_sets_for_a_service_is_no_setting(monkeypatch):
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP_ADDR"):
        monkeypatch.setenv(f"CLIPDEX_{name}", "10.0.0.1")
    read_settings()


def test_kubernetes_service_links_are_no_ports(monkeypatch):
    monkeypatch.setenv("CLIPDEX_PORT", "tcp://10.0.0.1:8000")
    assert read_settings().port == 8000


def test_the_cache_follows_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert read_settings().cache == Path("/c/clipdex")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert read_settings().cache is None
