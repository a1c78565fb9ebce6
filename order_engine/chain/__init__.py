"""The chain: where a swap becomes true."""
