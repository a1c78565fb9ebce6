"""What happens to an order, told through ports."""
