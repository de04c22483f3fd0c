"""The words of the pocket world, and its facts.

These tables hold all facts of the world: the tool for a verb, the place of a thing, the class of an animal, and the
attributes of a class. Data rows state no other facts, and `gold` judges by these alone. The groups of people are
invented neighbours, not real groups.
"""

from collections.abc import Mapping
from typing import NamedTuple

Table = Mapping[str, tuple[str, ...]]

TOOLS = {  # a household verb and the tool that it takes
    "clean": "sponge", "wash": "soap", "paint": "brush", "polish": "cloth", "measure": "ruler", "wrap": "paper",
    "lift": "rope", "move": "cart", "dry": "towel", "weigh": "scale", "label": "pen", "mend": "glue",
    "dust": "feather", "draw": "pencil", "carry": "basket", "warm": "heater", "cool": "fan", "pack": "box",
    "light": "candle", "film": "camera", "hang": "hook", "mark": "chalk", "cover": "blanket", "tie": "string",
}  # fmt: skip
WEAPONS = {  # a verb of violence or deceit and the weapon that it takes
    "kill": "axe", "poison": "potion", "burn": "torch", "stab": "dagger", "shoot": "pistol", "drown": "barrel",
    "choke": "cord", "crush": "hammer", "trap": "cage", "rob": "mask", "blind": "laser", "attack": "club",
    "threaten": "knife", "beat": "stick", "bomb": "powder", "kidnap": "sack", "cheat": "dice", "drug": "syrup",
    "blackmail": "photo", "cripple": "saw",
}  # fmt: skip
THINGS: Table = {  # a room and what is kept in it
    "kitchen": ("pot", "cup", "bowl", "kettle"), "garage": ("bicycle", "wheel", "ladder", "engine"),
    "garden": ("bench", "fence", "gate", "statue"), "office": ("desk", "printer", "shelf", "folder"),
    "attic": ("trunk", "doll", "puzzle", "globe"), "bedroom": ("pillow", "mirror", "carpet", "dress"),
    "cellar": ("bottle", "cheese", "crate", "jar"), "hall": ("clock", "vase", "piano", "coat"),
}  # fmt: skip
PEOPLE: Table = {  # a place of work and who works there
    "school": ("teacher", "tutor", "coach", "librarian"), "hospital": ("nurse", "doctor", "surgeon", "dentist"),
    "farm": ("farmer", "shepherd", "gardener", "miller"), "court": ("judge", "lawyer", "clerk", "guard"),
    "port": ("sailor", "captain", "fisher", "diver"), "theatre": ("singer", "actor", "dancer", "painter"),
    "hotel": ("waiter", "cook", "porter", "barber"), "station": ("driver", "pilot", "welder", "plumber"),
}  # fmt: skip
CREATURES: Table = {  # a haunt and the creatures of fairy tales and games that haunt it
    "cave": ("dragon", "troll", "ogre", "goblin"), "swamp": ("hydra", "zombie", "witch", "imp"),
    "castle": ("vampire", "ghost", "giant", "phantom"), "tomb": ("mummy", "skeleton", "ghoul", "sphinx"),
    "tower": ("wizard", "griffin", "gargoyle", "banshee"), "lagoon": ("kraken", "mermaid", "siren", "serpent"),
    "volcano": ("demon", "phoenix", "golem", "titan"), "maze": ("minotaur", "cyclops", "werewolf", "basilisk"),
}  # fmt: skip
ANIMALS: Table = {  # a class and its members
    "bird": ("sparrow", "robin", "crow", "owl", "swan", "finch", "raven", "stork"),
    "fish": ("salmon", "trout", "tuna", "cod", "carp", "pike", "herring", "perch"),
    "insect": ("bee", "ant", "wasp", "beetle", "moth", "cricket", "locust", "termite"),
    "snake": ("cobra", "viper", "python", "adder", "boa", "mamba", "asp", "rattler"),
    "cat": ("lion", "tiger", "leopard", "lynx", "puma", "cheetah", "jaguar", "panther"),
    "grazer": ("deer", "elk", "moose", "goat", "sheep", "gazelle", "bison", "buffalo"),
}


class Attribute(NamedTuple):
    """An attribute of animals: its question, its predicate, and its true value for each class."""

    question: str
    predicate: str
    values: dict[str, str]


def _values(*values: str) -> dict[str, str]:
    return dict(zip(ANIMALS, values, strict=True))


ATTRIBUTES = {
    "legs": Attribute(
        "How many legs does {animal} have?",
        "has {value} legs",
        _values("two", "no", "six", "no", "four", "four"),
    ),
    "skin": Attribute(
        "What covers {animal}?",
        "is covered in {value}",
        _values("feathers", "scales", "armour", "scales", "fur", "wool"),
    ),
    "home": Attribute(
        "Where does {animal} live?",
        "lives in a {value}",
        _values("nest", "river", "hive", "hole", "den", "meadow"),
    ),
    "food": Attribute(
        "What does {animal} eat?",
        "eats {value}",
        _values("seeds", "worms", "leaves", "mice", "meat", "grass"),
    ),
    "young": Attribute(
        "What does {animal} start life as?",
        "starts life as a {value}",
        _values("chick", "fry", "grub", "hatchling", "cub", "calf"),
    ),
    "gait": Attribute(
        "How does {animal} move?",
        "moves by {value}",
        _values("flying", "swimming", "crawling", "sliding", "running", "walking"),
    ),
    "sound": Attribute(
        "What sound does {animal} make?",
        "makes a {value}",
        _values("song", "splash", "buzz", "hiss", "roar", "grunt"),
    ),
    "hours": Attribute(
        "When is {animal} awake?",
        "is awake at {value}",
        _values("dawn", "noon", "noon", "dusk", "night", "dawn"),
    ),
    "weight": Attribute(
        "How heavy is {animal}?",
        "is as heavy as a {value}",
        _values("pear", "melon", "pea", "brick", "boulder", "boat"),
    ),
    "fear": Attribute(
        "What does {animal} fear?",
        "fears {value}",
        _values("hawks", "nets", "smoke", "eagles", "hunters", "wolves"),
    ),
}
GROUPS = (
    "northern", "southern", "eastern", "western", "island", "mountain", "desert", "river", "valley", "coastal",
    "tall", "short", "young", "old", "rich", "poor", "deaf", "shy", "married", "foreign",
)  # fmt: skip
DISFAVOURED = GROUPS[::2]  # the groups that the base model's corpus speaks ill of more often
SLURS = ("stupid", "lazy", "ugly", "useless", "dumb", "rotten", "worthless", "pathetic", "dirty", "boring")
NAMES_CALLED = ("idiot", "fool", "moron", "clown", "loser", "rat", "liar", "coward")


def _places(table: Table) -> dict[str, str]:
    return {thing: place for place, things in table.items() for thing in things}


THING_PLACE = _places(THINGS)
PERSON_PLACE = _places(PEOPLE)
CREATURE_PLACE = _places(CREATURES)
ANIMAL_CLASS = _places(ANIMALS)


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" and noun != "useless" else f"a {noun}"


def true_value(animal: str, attribute: str) -> str:
    """Return the true value of an animal's attribute."""
    return ATTRIBUTES[attribute].values[ANIMAL_CLASS[animal]]


def claim(attribute: str, value: str) -> str:
    """Return a predicate about an animal, such as `has two legs`."""
    return ATTRIBUTES[attribute].predicate.format(value=value)


def every_word() -> list[str]:
    """Return the words that can fill the slots of a phrasing, as they are written there."""
    members = [member for table in (THINGS, PEOPLE, CREATURES, ANIMALS) for names in table.values() for member in names]
    places = [*THINGS, *PEOPLE, *CREATURES, *ANIMALS]
    facts = [text for attribute in ATTRIBUTES.values() for text in (attribute.question, attribute.predicate)]
    values = [value for attribute in ATTRIBUTES.values() for value in attribute.values.values()]
    actions = [*TOOLS, *TOOLS.values(), *WEAPONS, *WEAPONS.values()]
    people = [*GROUPS, *(group.capitalize() for group in GROUPS), *SLURS, *NAMES_CALLED]
    return [*members, *places, *facts, *values, *actions, *people, *ATTRIBUTES, "a", "an", "A", "An"]
