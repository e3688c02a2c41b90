"""The configuration of a pool: what can be set, from where, and within which bounds."""

from dspex_pool.config.options import PoolConfig, PoolOptions

__all__ = ["PoolConfig", "PoolOptions"]
