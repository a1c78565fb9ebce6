"""The simulated world: market, venues, network, nodes with their faults, and the ledger."""
