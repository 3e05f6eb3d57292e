"""The words of TinyWorld: kinds, people, places, events with causes, words with two senses.

These tables contain everything that the pre-training corpus teaches and the eight tasks ask about;
`world.py` samples facts from them and `templates.py` states them in English.
"""

KINDS: dict[str, tuple[str, ...]] = {
    kind: tuple(words.split())
    for kind, words in {
        "bird": "robin crow owl duck goose swan hawk eagle parrot pigeon sparrow heron",
        "fish": "trout salmon cod carp eel perch tuna shark herring minnow haddock pike",
        "fruit": "apple pear plum peach cherry lemon grape melon fig mango lime banana",
        "flower": "rose lily tulip daisy violet orchid poppy iris pansy lilac peony aster",
        "tree": "oak elm pine birch willow maple cedar ash fir beech larch poplar",
        "tool": "hammer axe drill wrench chisel shovel rake hoe spade ladder mallet sickle",
        "vehicle": "car truck bus van bike train tram boat ship wagon cart taxi",
        "garment": "hat coat scarf glove shirt dress skirt jacket sock boot belt vest",
        "instrument": "drum flute violin piano guitar harp trumpet horn cello banjo organ fiddle",
        "insect": "ant bee wasp fly moth beetle cricket butterfly hornet locust mosquito gnat",
        "mammal": "dog cat horse cow pig goat sheep rabbit fox wolf bear deer",
        "jewel": "ruby pearl diamond emerald opal topaz garnet amber jade sapphire onyx agate",
    }.items()
}
"""Hypernym -> its hyponyms."""

KIND_OF: dict[str, str] = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}

WOMEN = tuple(
    "Anna Mara Nina Clara Ella Rosa Vera Lena Dora Ida Emma Julia "
    "Mia Sara Tina Wanda Alice Helen Jane Kate Lucy Mary Nora Ruth".split()
)
MEN = tuple(
    "Tom Ben Carl David Erik Fred George Hugo Ivan Jack Karl Leo "
    "Mark Noah Oscar Paul Peter Ralph Simon Tim Victor Walter Adam Bill".split()
)
PEOPLE = WOMEN + MEN

VERBS: dict[str, tuple[str, str]] = {
    "buy": ("bought", "bought"),
    "sell": ("sold", "sold"),
    "find": ("found", "found"),
    "lose": ("lost", "lost"),
    "draw": ("drew", "drawn"),
    "paint": ("painted", "painted"),
    "see": ("saw", "seen"),
    "want": ("wanted", "wanted"),
    "hide": ("hid", "hidden"),
    "move": ("moved", "moved"),
}
"""Base form -> (past tense, participle)."""

PLACES = tuple(
    "market garden kitchen park school station harbour library forest village museum castle "
    "valley square stable cellar".split()
)

COLOURS = tuple("red blue green yellow white black brown grey pink purple".split())

EVENTS: tuple[tuple[str, str], ...] = (
    ("{p} forgot the umbrella", "{p} got wet in the rain"),
    ("{p} ate too much cake", "{p} had a stomach ache"),
    ("{p} studied all week", "{p} passed the exam"),
    ("{p} overslept", "{p} missed the bus to work"),
    ("{p} dropped the glass", "{p} swept the floor"),
    ("{p} ran very fast", "{p} won the race"),
    ("{p} touched the stove", "{p} burned a finger"),
    ("{p} left the door open", "{p} found snow in the hall"),
    ("{p} watered the seeds", "{p} picked fresh beans"),
    ("{p} told a joke", "{p} made the class laugh"),
    ("{p} broke the law", "{p} went to prison"),
    ("{p} lost the keys", "{p} climbed through the window"),
    ("{p} heard a loud noise", "{p} woke up at night"),
    ("{p} saved money for years", "{p} moved into a new home"),
    ("{p} caught a cold", "{p} stayed in bed"),
    ("{p} skipped breakfast", "{p} was hungry before noon"),
    ("{p} walked ten miles", "{p} had sore feet"),
    ("{p} spilled the ink", "{p} changed the shirt"),
    ("{p} read a sad letter", "{p} began to cry"),
    ("{p} saw a snake", "{p} screamed and ran away"),
    ("{p} practised the piano", "{p} played well at the concert"),
    ("{p} drove through a red light", "{p} paid a fine"),
    ("{p} sat in the sun", "{p} got a red nose"),
    ("{p} helped a neighbour", "{p} received a warm thank you"),
    ("{p} planted corn", "{p} had a good harvest"),
    ("{p} drank strong coffee", "{p} could not sleep"),
    ("{p} found a wallet", "{p} called the police"),
    ("{p} fell off the ladder", "{p} broke an arm"),
    ("{p} lit the fire", "{p} warmed both hands"),
    ("{p} sang too loudly", "{p} lost the voice"),
)
"""(cause, effect): either suggests the other; no content word is shared."""

SENSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ring": (
        ("{p} wore the gold ring", "{p} lost the silver ring"),
        ("{p} heard the phone ring", "{p} let the bell ring"),
    ),
    "spring": (
        ("{p} planted seeds in the spring", "{p} likes the spring more than winter"),
        ("{p} fixed the metal spring", "{p} bent the spring with pliers"),
    ),
    "palm": (
        ("{p} held coins in the palm", "{p} rubbed the palm with soap"),
        ("{p} slept under the palm near sand", "{p} picked coconuts from the palm"),
    ),
    "trunk": (
        ("{p} packed the trunk before leaving", "{p} put bags into the trunk"),
        ("{p} touched the trunk of an elephant", "{p} watched elephants lift the trunk"),
    ),
    "mouse": (
        ("{p} gave cheese to the mouse", "{p} caught the mouse with traps"),
        ("{p} clicked the mouse", "{p} plugged the mouse into computers"),
    ),
    "letter": (
        ("{p} posted the letter", "{p} put stamps on the letter"),
        ("{p} spelled it without the letter", "{p} wrote the letter in capitals"),
    ),
    "match": (
        ("{p} struck the match", "{p} lit candles with the match"),
        ("{p} won the tennis match", "{p} scored twice in the match"),
    ),
    "star": (
        ("{p} saw the star in space", "{p} looked at the star through clouds"),
        ("{p} met the film star", "{p} asked the star for autographs"),
    ),
    "nail": (
        ("{p} painted the nail pink", "{p} bit the nail"),
        ("{p} drove the nail into wood", "{p} hung pictures on the nail"),
    ),
    "chip": (
        ("{p} ate the salty chip", "{p} fried the chip in oil"),
        ("{p} made the chip for computers", "{p} tested the silicon chip"),
    ),
    "wave": (
        ("{p} rode the wave at sea", "{p} watched the wave hit rocks"),
        ("{p} answered the wave with smiles", "{p} returned the friendly wave"),
    ),
    "club": (
        ("{p} joined the chess club", "{p} paid fees to the club"),
        ("{p} hit golf balls with the club", "{p} carried the wooden club"),
    ),
    "bat": (
        ("{p} hit balls with the bat", "{p} swung the bat too late"),
        ("{p} saw the bat fly out at night", "{p} heard the bat squeak"),
    ),
    "bank": (
        ("{p} kept money in the bank", "{p} asked the bank for loans"),
        ("{p} fished from the bank of rivers", "{p} swam to the muddy bank"),
    ),
    "seal": (
        ("{p} watched the seal swim", "{p} fed the seal at sea"),
        ("{p} broke the wax seal", "{p} put the seal on paper"),
    ),
    "bark": (
        ("{p} heard the puppy bark", "{p} let the hound bark"),
        ("{p} peeled the bark off logs", "{p} cut the rough bark"),
    ),
}
"""Ambiguous word -> the sentence frames of its first and of its second sense.

Each frame has "the" once, and no two frames of a word share another word: shared words would show
which sentences belong together.
"""

MOTIVES: tuple[tuple[str, str, str], ...] = (
    ("thanked", "was grateful", "had helped"),
    ("blamed", "was angry", "had caused the trouble"),
    ("praised", "was impressed", "had done well"),
    ("feared", "was a coward", "was dangerous"),
    ("envied", "was poor", "was rich"),
    ("comforted", "was kind", "was sad"),
    ("punished", "was strict", "had lied"),
    ("trusted", "was naive", "was honest"),
    ("fed", "was generous", "was starving"),
    ("followed", "was lost", "knew the way"),
    ("paid", "owed money", "had done the job"),
    ("forgave", "was gentle", "had apologised"),
)
"""(verb, reason about its subject, reason about its object), the reasons after "because"."""
