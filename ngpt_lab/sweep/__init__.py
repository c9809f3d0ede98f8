"""Many runs from one specification, started with one line; nothing here loads torch before a run or a plan needs it."""
