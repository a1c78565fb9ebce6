"""Orders as pure values, and their rules. No await, no clock, no input or output."""
