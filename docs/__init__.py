"""The project's documents, and what writes parts of them."""
