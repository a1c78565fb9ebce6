"""The places where a swap can be executed."""
