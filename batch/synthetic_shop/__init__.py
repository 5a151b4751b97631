"""A synthetic shop with structure to find: who likes what, what goes with what, and when.

The shop is simulated day by day (shop-local days) and block by block (a fixed number of shoppers).
`assortment` and `wording` hold the words, `catalog` the products, `market` what changes about them each day,
`shoppers` the tastes, `memory` what shoppers carry from visit to visit, `visits` what they look at, `funnel` what
they put into the cart and buy, `simulation` the loop and `tables` the Arrow rows.

Everything is causal: a day reads the past only. What a recommender can find: leaf categories that shoppers of one
persona share; styles that cut across categories (collaborative filtering); favourite brands and a price level;
families of substitutes looked at together; partner products bought together or a few days later; unfinished business
(looked at or left in the cart); refills of consumables after 30 days; discounts, arrivals, viral products and slow
trends. Simplified on purpose: prices and stock change in a nightly import shortly after midnight, stock does not
react to the simulated orders (blocks of shoppers would depend on each other), a visit never crosses midnight, and
the products of a visit are drawn around its needs and not one from the other.
"""
