"""The configuration of a pool: what can be set, from where, and within which bounds."""

from dspex_pool.config.display import SettingRow, settings_table
from dspex_pool.config.options import PoolConfig, PoolOptions
from dspex_pool.config.sources import PROFILES

__all__ = ["PROFILES", "PoolConfig", "PoolOptions", "SettingRow", "settings_table"]
