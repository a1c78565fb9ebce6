"""The roles that the engine needs from the outside world; adapters play them. Only wiring.py knows who plays them."""
