"""Settings from an environment and a directory in which nothing else is set."""

from pathlib import Path

import pytest

from order_engine.settings import Settings, SettingsError, load_settings


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def load(nothing_set: None, monkeypatch: pytest.MonkeyPatch):
    def load_from(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load_from


@pytest.fixture
def refusal(load):
    def refusal_of(**environment: str) -> str:
        with pytest.raises(SettingsError) as caught:
            load(**environment).require_services()
        return str(caught.value)

    return refusal_of
