"""From run folders to tidy frames, from frames to statistics and figures."""
