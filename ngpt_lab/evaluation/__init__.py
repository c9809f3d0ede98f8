"""What a trained model scores: on tasks, and by the length of its context."""
