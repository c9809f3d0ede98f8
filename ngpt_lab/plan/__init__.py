"""What a run will need, told before it runs: memory, operations and time."""
