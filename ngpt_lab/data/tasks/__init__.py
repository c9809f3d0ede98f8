"""Labelled examples for fine-tuning: sequences, tokens, and spans that answer questions."""
