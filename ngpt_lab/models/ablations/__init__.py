"""Parts that stand in for a default one, a file each; a config names them by class path."""
