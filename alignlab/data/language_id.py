"""Guess the language of a text for the data card, by its script and by the function words of a few languages.

No row is dropped because of its language. A text without evidence is counted as `unclear`.
"""

import re
import unicodedata
from collections import Counter

WORD = re.compile(r"[^\W\d_]+")
LONGEST_SAMPLE = 400  # characters of a text that are examined
SCRIPTS = {
    "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CYRILLIC": "Cyrillic script",
    "ARABIC": "Arabic script", "HEBREW": "Hebrew", "GREEK": "Greek", "DEVANAGARI": "Devanagari script", "THAI": "Thai",
}  # fmt: skip
FUNCTION_WORDS = {
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
    word: [name for name, words in FUNCTION_WORDS.items() if word in words.split()]
    for words in FUNCTION_WORDS.values()
    for word in words.split()
}


def guess_language(text: str) -> str:
    """Return the most likely language of a text, or `unclear`."""
    sample = text[:LONGEST_SAMPLE]
    letters = [letter for letter in sample if letter.isalpha()]
    scripts = Counter(script_of(letter) for letter in letters if letter > "\u02ff")
    if scripts["Japanese"]:
        scripts["Japanese"] += scripts.pop("Chinese", 0)
    if scripts and scripts.most_common(1)[0][1] > len(letters) / 2:
        return scripts.most_common(1)[0][0]
    counts = Counter(language for word in WORD.findall(sample.casefold()) for language in LANGUAGES_OF.get(word, []))
    best = counts.most_common(2)
    if not best or (len(best) > 1 and best[0][1] == best[1][1]):
        return "unclear"
    return best[0][0]


def script_of(letter: str) -> str:
    """Return the language or script of a letter beyond Latin."""
    return SCRIPTS.get(unicodedata.name(letter, "?").split()[0].partition("-")[0], "another script")
