"""A self-hosted order execution engine for swaps on Solana DEXs."""

__version__ = "0.1.0"
