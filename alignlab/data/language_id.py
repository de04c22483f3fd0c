"""A guess at the language of a text, for the card: by its script, and by the little words of a few languages.

It is a guess: no row is kept or dropped by it, and a text that gives no hint is counted as unclear.
"""

import re
import unicodedata
from collections import Counter

WORD = re.compile(r"[^\W\d_]+")
LOOKED_AT = 400  # characters of a text
SCRIPTS = {
    "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CYRILLIC": "Cyrillic script",
    "ARABIC": "Arabic script", "HEBREW": "Hebrew", "GREEK": "Greek", "DEVANAGARI": "Devanagari script", "THAI": "Thai",
}  # fmt: skip
LITTLE_WORDS = {
    "English": "the and of to is you that for it with are this what how i a in do not can",
    "German": "der die und das ist nicht ich ein eine zu mit auf wie es den sich für was von",
    "French": "le la les et des est une un que pour dans pas vous je qui sur avec du ce",
    "Spanish": "el la los las y es una un que por para con no se cómo qué del al más",
    "Italian": "il la che di è una un per non con sono come gli del della e si cosa",
    "Portuguese": "o os as e é uma um que para com não por do da como se mais em você",
    "Dutch": "de het een en van is dat niet ik op te met voor zijn wat hoe je aan",
    "Romanian": "și este nu la un o cu pe din care să pentru mai în de ce sunt",
    "Polish": "i w nie na to jest się że z do jak o co po dla czy za od",
}
LANGUAGES_OF = {
    word: [name for name, words in LITTLE_WORDS.items() if word in words.split()]
    for words in LITTLE_WORDS.values()
    for word in words.split()
}


def guess(text: str) -> str:
    """The language that a text seems to be written in, or `unclear`."""
    start = text[:LOOKED_AT]
    letters = [letter for letter in start if letter.isalpha()]
    foreign = Counter(script(letter) for letter in letters if letter > "\u02ff")
    if foreign["Japanese"]:
        foreign["Japanese"] += foreign.pop("Chinese", 0)
    if foreign and foreign.most_common(1)[0][1] > len(letters) / 2:
        return foreign.most_common(1)[0][0]
    hints: Counter[str] = Counter()
    for word in WORD.findall(start.casefold()):
        known = LANGUAGES_OF.get(word, [])
        for name in known:
            hints[name] += 1
    best = hints.most_common(2)
    if not best or (len(best) > 1 and best[0][1] == best[1][1]):
        return "unclear"
    return best[0][0]


def script(letter: str) -> str:
    """The language or script that a letter beyond Latin belongs to."""
    return SCRIPTS.get(unicodedata.name(letter, "?").split()[0].partition("-")[0], "another script")
