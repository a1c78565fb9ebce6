"""Executes orders; reaches the outside world only through ports."""
