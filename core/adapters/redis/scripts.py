"""Every Lua script we send. Each touches only the keys it is given in KEYS, which Dragonfly and clusters insist on."""

from collections.abc import Mapping
from typing import Final

WRITE_RECORD: Final = """
-- KEYS: the record, its tenant's names.
-- ARGV: deed, id, version, expected version or '', body, now_ms, kept_ms, records_max.
local deed, id, version, expected = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', KEYS[1], 'version', 'created_at_ms', 'updated_at_ms', 'body')
local is, created_at_ms = found[1], ARGV[6]
if deed ~= 'delete' and is and is == version then
    return {'DONE', found[1], found[2], found[3], found[4]}
end
if deed == 'create' then
    if is then
        return {'RECORD_EXISTS'}
    end
    if not redis.call('ZSCORE', KEYS[2], id) and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then
        return {'TOO_MANY_RECORDS'}
    end
else
    if not is then
        return {'RECORD_NOT_FOUND'}
    end
    if expected ~= '' and expected ~= is then
        return {'VERSION_MISMATCH'}
    end
    if deed == 'delete' then
        redis.call('DEL', KEYS[1])
        redis.call('ZREM', KEYS[2], id)
        return {'DONE'}
    end
    created_at_ms = found[2]
end
local updated_at_ms = ARGV[6]
if tonumber(updated_at_ms) < tonumber(created_at_ms) then
    updated_at_ms = created_at_ms
end
redis.call('HSET', KEYS[1], 'version', version, 'created_at_ms', created_at_ms, 'updated_at_ms', updated_at_ms,
    'body', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
-- Each write keeps the names for as long as the record written last, so they outlive every record.
redis.call('ZADD', KEYS[2], 0, id)
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return {'DONE', version, created_at_ms, updated_at_ms, ARGV[5]}
"""

FORGET_NAMES: Final = """
-- KEYS: a tenant's names, then a record for each id in ARGV. Takes out the names whose record is gone.
local forgotten = 0
for number, id in ipairs(ARGV) do
    if redis.call('EXISTS', KEYS[number + 1]) == 0 then
        forgotten = forgotten + redis.call('ZREM', KEYS[1], id)
    end
end
return forgotten
"""

SCRIPTS: Final[Mapping[str, str]] = {"write_record": WRITE_RECORD, "forget_names": FORGET_NAMES}
