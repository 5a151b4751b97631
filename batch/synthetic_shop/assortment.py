"""The words of the assortment: category tree, product kinds, what goes with what, and how things are described."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf category: its path, the median price in cents, whether it is used up, its product kinds, and the leaves
    whose products go with it.
    """

    root: str
    name: str
    median_price_cents: int
    consumable: bool
    kinds: tuple[str, ...]
    complements: tuple[str, ...]


# root | leaf | median price in cents, * = used up | product kinds | leaves that go with it
_TABLE = """
Outdoor | Tents | 18900 | dome tent, tunnel tent, tarp shelter | Sleeping gear, Camp kitchen, Lamps and torches
Outdoor | Sleeping gear | 7900 | sleeping bag, sleeping mat, camping pillow | Tents, Backpacks
Outdoor | Backpacks | 8900 | trekking backpack, daypack, travel duffel | Water bottles, Rainwear, Hiking boots
Outdoor | Camp kitchen | 3900 | gas stove, cook set, folding kettle | Tents, Water bottles
Outdoor | Water bottles | 1900 | insulated bottle, hydration bladder, water filter | Backpacks, Cycling gear
Outdoor | Hiking boots | 12900 | leather hiking boot, trail shoe, approach shoe | Socks, Rainwear
Outdoor | Rainwear | 9900 | rain jacket, rain trousers, poncho | Hiking boots, Backpacks
Sports | Running shoes | 10900 | road running shoe, racing shoe, cushioned running shoe | Socks, Running wear
Sports | Running wear | 3900 | running tights, running shirt, wind vest | Running shoes, Fitness trackers
Sports | Yoga | 2900 | yoga mat, yoga block, bolster | Strength training, Water bottles
Sports | Strength training | 4900 | kettlebell, resistance band set, dumbbell pair | Yoga, Sports nutrition
Sports | Sports nutrition | 1900* | protein powder, energy bar box, electrolyte mix | Strength training, Running wear
Sports | Cycling gear | 4500 | cycling helmet, bike light set, cycling gloves | Bike parts, Water bottles
Sports | Bike parts | 2900 | inner tube set, bike chain, saddle | Cycling gear
Kitchen | Cookware | 5900 | frying pan, casserole, saucepan set | Kitchen knives, Kitchen tools
Kitchen | Kitchen knives | 6900 | chef's knife, bread knife, paring knife set | Kitchen tools, Cookware
Kitchen | Kitchen tools | 1500 | chopping board, measuring set, mixing bowl | Cookware, Baking
Kitchen | Baking | 1900 | cake tin, baking mat, rolling pin | Kitchen tools, Baking supplies
Kitchen | Baking supplies | 700* | bread flour, baking chocolate, dried yeast | Baking
Kitchen | Coffee makers | 8900 | espresso machine, filter coffee maker, moka pot | Coffee beans, Mugs and cups
Kitchen | Coffee beans | 1300* | espresso beans, filter roast, decaf beans | Coffee makers, Mugs and cups
Kitchen | Tea | 900* | green tea, black tea, herbal infusion | Mugs and cups, Tea ware
Kitchen | Tea ware | 2900 | teapot, tea infuser, electric kettle | Tea, Mugs and cups
Kitchen | Mugs and cups | 1400 | stoneware mug, espresso cup set, travel mug | Coffee beans, Tea
Home | Bedding | 6900 | duvet cover set, fitted sheet, wool blanket | Pillows, Candles
Home | Pillows | 3500 | memory foam pillow, down pillow, cushion cover | Bedding, Throws
Home | Throws | 4500 | knitted throw, linen throw, bedspread | Pillows, Candles
Home | Candles | 1600* | scented candle, pillar candle set, tealight pack | Vases, Throws
Home | Vases | 3200 | glass vase, ceramic vase, bud vase set | Candles, House plants
Home | Lamps and torches | 5900 | table lamp, floor lamp, rechargeable lantern | Light bulbs
Home | Light bulbs | 1100* | LED bulb pack, filament bulb, smart bulb | Lamps and torches
Home | Storage | 2900 | storage basket, shelf box set, shoe rack | Wardrobe care, Desk accessories
Garden | House plants | 2400 | potted fern, monstera, snake plant | Plant pots, Plant care
Garden | Plant pots | 1900 | terracotta pot, hanging planter, window box | House plants, Plant care
Garden | Plant care | 900* | plant food, potting soil, pest spray | House plants, Plant pots
Garden | Garden tools | 3400 | secateurs, hand trowel set, garden fork | Seeds, Garden gloves
Garden | Seeds | 400* | wildflower seeds, salad seed mix, herb seed kit | Plant pots, Garden tools
Garden | Garden gloves | 1300 | leather garden gloves, thorn-proof gloves, kneeling pad | Garden tools
Garden | Barbecue | 14900 | charcoal barbecue, gas barbecue, portable grill | Barbecue fuel, Kitchen tools
Garden | Barbecue fuel | 1500* | lumpwood charcoal, briquettes, smoking chips | Barbecue
Electronics | Headphones | 11900 | wireless headphones, in-ear headphones, gaming headset | Speakers, Phone cases
Electronics | Speakers | 12900 | bluetooth speaker, soundbar, bookshelf speaker pair | Cables and chargers
Electronics | Phone cases | 1900 | leather phone case, clear case, phone wallet | Screen protectors, Cables and chargers
Electronics | Screen protectors | 1200 | tempered glass, privacy screen, camera guard | Phone cases
Electronics | Cables and chargers | 1700 | USB-C charger, braided cable, power bank | Phone cases, Headphones
Electronics | Fitness trackers | 13900 | running watch, activity band, heart rate strap | Running shoes, Running wear
Electronics | Keyboards and mice | 6900 | mechanical keyboard, wireless mouse, keypad | Desk accessories, Monitors
Electronics | Monitors | 22900 | office monitor, gaming monitor, small monitor | Cables and chargers, Keyboards and mice
Office | Notebooks | 1400 | dotted notebook, leather journal, planner | Pens, Desk accessories
Office | Pens | 1200 | fountain pen, gel pen set, drawing pen set | Notebooks, Ink and paper
Office | Ink and paper | 1100* | ink bottle, printer paper, cartridge pack | Pens
Office | Desk accessories | 2900 | desk organiser, monitor stand, desk mat | Keyboards and mice, Notebooks
Fashion | T-shirts | 2500 | cotton T-shirt, striped T-shirt, long-sleeved top | Jeans, Jumpers
Fashion | Jeans | 6900 | slim jeans, straight jeans, denim jacket | Belts, T-shirts
Fashion | Jumpers | 5900 | merino jumper, cardigan, fleece | Jeans, Wardrobe care
Fashion | Belts | 3500 | leather belt, woven belt, card wallet | Jeans
Fashion | Socks | 1400 | wool socks, ankle sock pack, running socks | Running shoes, Hiking boots
Fashion | Wardrobe care | 1300 | wool wash, clothes brush, cedar hanger set | Jumpers, Storage
Beauty | Skin care | 2400* | face cream, cleanser, vitamin serum | Sun care, Hair care
Beauty | Hair care | 1600* | shampoo, conditioner, hair oil | Skin care, Shaving
Beauty | Sun care | 1700* | sun cream, after-sun lotion, tinted sunscreen | Skin care
Beauty | Shaving | 1900* | razor blade pack, shaving cream, beard oil | Skin care
Beauty | Perfume | 6500 | eau de parfum, eau de toilette, travel perfume set | Skin care
Toys | Building sets | 4900 | brick set, marble run, train set | Board games, Craft supplies
Toys | Board games | 3200 | strategy game, party game, card game | Puzzles
Toys | Puzzles | 1900 | jigsaw puzzle, wooden puzzle, 3D puzzle | Board games
Toys | Craft supplies | 1100* | watercolour set, modelling clay, craft paper pack | Building sets, Picture books
Toys | Picture books | 1200 | picture book, sticker book, bedtime story book | Soft toys
Toys | Soft toys | 2200 | soft bear, plush rabbit, hand puppet | Picture books
Pets | Dog food | 3900* | dry dog food, wet dog food tray, dog treats | Dog walking
Pets | Dog walking | 2700 | dog lead, dog harness, reflective collar | Dog food, Pet beds
Pets | Cat food | 2900* | dry cat food, wet cat food pack, cat treats | Cat litter, Cat toys
Pets | Cat litter | 1600* | clumping litter, wood litter, litter refill | Cat food
Pets | Cat toys | 1500 | scratching post, feather wand, catnip mouse | Cat food, Pet beds
Pets | Pet beds | 4900 | dog bed, cat cave, pet blanket | Dog walking, Cat toys
"""


def _leaf(line: str) -> Leaf:
    root, name, price, kinds, complements = (part.strip() for part in line.split("|"))
    return Leaf(
        root=root,
        name=name,
        median_price_cents=int(price.rstrip("*")),
        consumable=price.endswith("*"),
        kinds=tuple(kind.strip() for kind in kinds.split(",")),
        complements=tuple(leaf.strip() for leaf in complements.split(",")),
    )


LEAVES: tuple[Leaf, ...] = tuple(_leaf(line) for line in _TABLE.strip().splitlines())

# One word a style: a style is a taste that cuts across categories, and the word stands in the description.
STYLES = (
    "minimal", "rustic", "sporty", "classic", "playful", "industrial", "Nordic", "vintage",
    "natural", "bold", "elegant", "rugged", "pastel", "monochrome", "bohemian", "futuristic",
)  # fmt: skip
COLOURS = (
    "black", "white", "slate grey", "navy", "forest green", "sand", "terracotta", "mustard",
    "sky blue", "burgundy", "olive", "rose", "copper", "ivory", "teal", "charcoal",
)  # fmt: skip
QUALIFIERS = ("", "small", "large", "everyday", "premium", "travel", "limited edition", "classic", "starter", "gift")
PACKS = ("single pack", "twin pack", "family pack", "refill", "sample size", "value pack")
MODELS = (
    "Alder", "Birch", "Cove", "Dune", "Ember", "Fjord", "Glen", "Harbour", "Isla", "Juniper", "Kestrel", "Larch",
    "Meadow", "North", "Orchard", "Pebble", "Quarry", "Ridge", "Summit", "Thistle", "Umber", "Vale", "Willow", "Zephyr",
)  # fmt: skip
BRAND_STARTS = (
    "Nor", "Al", "Ber", "Cal", "Dor", "El", "Fen", "Gri", "Hal", "Iv", "Jor", "Kel",
    "Lum", "Mar", "Nes", "Or", "Pel", "Quin", "Ros", "Sol", "Tor", "Ul", "Ver", "Wyn",
)  # fmt: skip
BRAND_ENDS = (
    "vik", "dane", "ton", "mora", "lis", "wen", "gard", "essa", "low", "berg", "tide", "field",
    "nova", "rin", "stead", "ora", "holm", "bury", "lund", "ette", "fell", "mark", "ley", "on",
)  # fmt: skip
