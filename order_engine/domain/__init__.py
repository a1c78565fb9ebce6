"""What an order is: pure values and rules. No await, no clock, no input or output."""
