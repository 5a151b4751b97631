"""The state versions this code folds; the only place where the processor meets the features."""

from __future__ import annotations

from shared.features.definitions import STATE_VERSION
from shared.features.fold import ItemCounters, fold_item, fold_user
from shared.features.shard import UserShard
from shared.ingest.fold_chunk import StateVersion


def _decode_user(data: bytes | None) -> UserShard:
    return UserShard.empty() if data is None else UserShard.decode(data)


def _decode_item(data: bytes | None) -> ItemCounters:
    return ItemCounters.empty() if data is None else ItemCounters.decode(data)


def _user_expires(shard: UserShard) -> bool:
    return shard.preferences_version is None  # preferences outlive idleness


CURRENT_VERSION: StateVersion[UserShard, ItemCounters] = StateVersion(
    name=STATE_VERSION,
    decode_user=_decode_user,
    encode_user=UserShard.encode,
    user_expires=_user_expires,
    fold_user=fold_user,
    decode_item=_decode_item,
    encode_item=ItemCounters.encode,
    fold_item=fold_item,
)
