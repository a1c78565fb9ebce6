"""The error of wrong settings."""


class SettingsError(Exception):
    """Settings are wrong; the message has one sentence for each, ready for the user."""
