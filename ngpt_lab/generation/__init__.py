"""Text from a decoder, without Hugging Face."""
