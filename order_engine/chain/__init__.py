"""The chain, where swaps execute: Solana's JSON-RPC, and the transactions for it."""
