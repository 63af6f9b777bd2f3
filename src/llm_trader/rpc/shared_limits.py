"""The levels of clients in Redis, for servers that share their limits."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from llm_trader.rpc.client_limits import Levels
from llm_trader.rpc.config import RpcConfig
from llm_trader.storage.redis_connection import RedisConnection

_PREFIX: Final = "llm-trader:limits:"

# One step for Redis, so that no two servers grant the same request. The clock is that of Redis,
# because those of servers differ; one that steps back gives nothing, and takes nothing.
_TAKE: Final = """
local rate, burst, work_rate, work_burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wanted, worked = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local known = redis.call('HMGET', KEYS[1], 'at_ms', 'requests', 'work_ms')
local passed_s = math.max(now - (tonumber(known[1]) or now), 0) / 1000
local requests = math.min(burst, (tonumber(known[2]) or burst) + passed_s * rate)
local work = math.min(work_burst, (tonumber(known[3]) or work_burst) + passed_s * work_rate) - worked
local granted = (rate == 0 or requests >= wanted) and (work_rate == 0 or work > 0.001)
if granted then requests = requests - wanted end
local full_s = 1
if rate > 0 then full_s = math.max(full_s, (burst - requests) / rate) end
if work_rate > 0 then full_s = math.max(full_s, (work_burst - work) / work_rate) end
redis.call('HSET', KEYS[1], 'at_ms', tostring(now), 'requests', tostring(requests), 'work_ms', tostring(work))
redis.call('PEXPIRE', KEYS[1], math.ceil(full_s * 1000) + 1000)
return {granted and 1 or 0, tostring(requests), tostring(work)}
"""  # noqa: E501


class RedisLevels:
    """`SharedLevels` in Redis. Servers with other limits keep levels of their own there."""

    def __init__(self, config: RpcConfig, *, password: str | None = None) -> None:
        self._redis = RedisConnection(
            config.limits_redis_url or "",
            purpose="limits shared between servers",
            setting="serving.limits_redis_url",
            timeout_s=config.limits_redis_timeout_ms / 1000,
            password=password,
        )
        self._take = self._redis.client.register_script(_TAKE)
        self.configure(config)

    def configure(self, config: RpcConfig) -> None:
        self._limits = (
            *(config.rate_limit_per_s, config.rate_burst),
            *(config.work_limit_ms_per_s, config.work_burst_ms),
        )
        named = hashlib.sha256(repr(self._limits).encode()).hexdigest()[:8]
        self._prefix = f"{_PREFIX}{named}:"

    async def take(self, client: str, requests: int, worked_ms: float) -> Levels | None:
        arguments = (*self._limits, requests, worked_ms)
        reply: Any = await self._redis.request(
            lambda: self._take(keys=[self._prefix + client], args=arguments)
        )
        if reply is None:
            return None
        granted, left, work_ms = reply
        return Levels(bool(granted), float(left), float(work_ms))

    async def aclose(self) -> None:
        await self._redis.aclose()
