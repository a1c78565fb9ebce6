"""What the engine needs from the world: roles that adapters play. Only wiring.py knows who plays them."""
