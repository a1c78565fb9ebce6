"""What hurries: the ready queue, the live feed and the rate limits."""
