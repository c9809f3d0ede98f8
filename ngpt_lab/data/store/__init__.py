"""Tokens on disk: shards, where documents begin, and a manifest."""

from ngpt_lab.data.store.building import SHARD_TOKENS, build
from ngpt_lab.data.store.opening import is_finished, open_folder, open_store, verify
from ngpt_lab.data.store.place import default_folder

__all__ = ["SHARD_TOKENS", "build", "default_folder", "is_finished", "open_folder", "open_store", "verify"]
