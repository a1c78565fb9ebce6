"""The settings of the log."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator


class LogSettings(BaseModel):
    """The log."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="Format of a log line.")

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower_level(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
