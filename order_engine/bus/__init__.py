"""The fast paths beside the store: the ready queue, the event bus and the rate limits."""
