"""What the state machine of the rules draws from: a corner of the shop, small enough that draws meet."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.integration.api_shop import item_id

POPULAR = [item_id(index) for index in range(0, 48, 3)]
NEW = ["new-1", "new-2", "new-3"]
ITEMS = [*POPULAR, *(item_id(index) for index in (41, 44, 59, 79)), *NEW]
CATEGORY_NAMES = [f"Category {number}" for number in range(4)]
BRANDS = [f"Brand {number}" for number in range(5)]
USERS = ["ann", "bob", "eve"]
PATHS = ["recommend", "popular", "items", "search", "similar_items", "bought_together", "user_profile"]
LOOKS_A_STEP = 2

workers = st.integers(0, 1)
items = st.sampled_from(ITEMS)
users = st.sampled_from(USERS)
maybe_users = st.sampled_from([None, *USERS])
maybe_categories = st.sampled_from([None, None, *CATEGORY_NAMES])
some_items = st.lists(items, max_size=6)
stocks = st.sampled_from([None, 0, 0, 5])
prices = st.sampled_from([100, 520, 560, 600, 5000])
paths = st.sampled_from([["Shop", name] for name in CATEGORY_NAMES] + [["Elsewhere"], []])
brands = st.sampled_from([*BRANDS, None])
patches = st.fixed_dictionaries(
    {}, optional={"stock": stocks, "price_cents": prices, "hidden": st.booleans(), "categories": paths, "brand": brands}
).filter(bool)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "hidden_items": some_items,
        "hidden_categories": st.lists(st.sampled_from([*CATEGORY_NAMES, "Elsewhere", "Nowhere"]), max_size=2),
        "hidden_brands": st.lists(st.sampled_from([*BRANDS, "Nobody"]), max_size=2),
        "favourite_categories": st.lists(st.sampled_from([*CATEGORY_NAMES, "Shop"]), max_size=2),
        "min_price_cents": st.sampled_from([0, 510, 550]),
        "max_price_cents": st.sampled_from([560, 600, 900]),
        "personalised": st.booleans(),
    },
)
