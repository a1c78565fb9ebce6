"""The places where a swap can be executed, one module each. The simulated ones are in paper/venue.py."""
