"""What rounding costs: of our own arithmetic, and of a machine that executes the network."""
