"""The Hugging Face classes around our decoder."""
