"""Texts continued by a decoder: a cache, how the next token is chosen, and pieces of text as they come."""
