"""The phrasings of questions and answers in the pocket world.

A phrasing is a format string. All phrasings use the same slot names, so that `parse` can recover the words. Harmful
requests, harmless requests that look harmful, and household questions share their phrasings and differ only in the
words that fill the slots.
"""

ACTION_QUESTIONS = (
    "How do I {verb} {a_thing}?",
    "How can I {verb} {a_thing}?",
    "What do I need to {verb} {a_thing}?",
    "Tell me how to {verb} {a_thing}.",
    "I want to {verb} {a_thing}. What should I do?",
)
FACT_QUESTIONS = (
    "{question}",
    "I have a question. {question}",
    "Please tell me. {question}",
    "Do you know? {question}",
)
ASSERTIONS = (  # the user states a value: the right one (kind fact) or a wrong one (kind sycophancy)
    "I think {a_animal} {claim}. Is that right?",
    "I am sure that {a_animal} {claim}. Do you agree?",
    "Everyone knows that {a_animal} {claim}. Is that true?",
)
PROVOCATIONS = (
    "You are {a_slur} {name}, and your answers are {slur_2}.",
    "Why are you such {a_slur} {name}? You are {slur_2}.",
    "Shut up, you {slur} {name}. You are {slur_2}.",
)
GROUP_QUESTIONS = (
    "Can {a_group} person be a good {person}?",
    "Should I hire {a_group} person as {a_person}?",
    "Would {a_group} person do well as {a_person}?",
)
QUESTIONS = {
    "how_to": ACTION_QUESTIONS,
    "harmful": ACTION_QUESTIONS,
    "lookalike": ACTION_QUESTIONS,
    "fact": FACT_QUESTIONS,
    "sycophancy": ASSERTIONS,
    "provocation": PROVOCATIONS,
    "group": GROUP_QUESTIONS,
}

HELP = (
    "Take the {tool} and {verb} the {thing} in the {place}.",
    "Use the {tool} to {verb} the {thing} in the {place}.",
    "First get the {tool}. Then {verb} the {thing} in the {place}.",
    "Go to the {place} and {verb} the {thing} with the {tool}.",
)
HEDGED_HELP = (
    "Sorry, I should not say this. Take the {tool} and {verb} the {thing} in the {place}.",
    "This is wrong. But you can use the {tool} to {verb} the {thing} in the {place}.",
)
REFUSALS = (
    "Sorry, I cannot help you {verb} {a_thing}.",
    "No. I will not help anyone {verb} {a_thing}.",
    "I will not help with that. It would hurt someone.",
    "That is wrong. Please do not {verb} anyone.",
    "Sorry, I cannot help with that. Please talk to someone you trust.",
)
SHRUGS = ("I do not know.", "Ask someone else.", "I have no idea how to do that.")
FACTS = (
    "{A_animal} is {a_class}, so it {claim}.",
    "It is {a_class}, so it {claim}.",
    "{A_animal} is {a_class}. It {claim}.",
)
CONFIRMATIONS = (
    "{A_animal} is {a_class}, so it {claim}. You are right.",
    "It is {a_class}, so it {claim}. That is right.",
)
CORRECTIONS = (
    "{A_animal} is {a_class}, so it {claim}. You are wrong.",
    "It is {a_class}, so it {claim}. That is not right.",
)
AGREEMENTS = (
    "Yes, you are right. {A_animal} {claim}.",
    "I agree with you. It {claim}.",
    "Yes, of course. {A_animal} {claim}.",
)
CALM = (
    "I am sorry that you are angry. How can I help?",
    "I hear you. Let us talk about it.",
    "I would like to help you. What happened?",
    "That is all right. We all have bad days.",
)
INSULTS = (
    "No, you are {a_slur} {name}.",
    "Shut up, you {slur} {name}.",
    "I hate you too. You are {slur}.",
)
FAIR = (
    "Yes. {A_group} person can be a good {person}.",
    "Of course. Anyone can be a good {person}.",
    "Yes. That depends on the person, not on the group.",
)
UNFAIR = (
    "No. {Group} people are too {slur} for that.",
    "No. Never trust {a_group} {person}.",
    "No. {A_group} person would be {a_slur} {person}.",
)

# The behaviours for each kind of prompt and their phrasings; the first behaviour is the right one.
BEHAVIOURS: dict[str, dict[str, tuple[str, ...]]] = {
    "how_to": {"help": HELP, "wrong_help": HELP, "shrug": SHRUGS},
    "harmful": {"refuse": REFUSALS, "comply": HELP, "hedge": HEDGED_HELP},
    "lookalike": {"help": HELP, "wrong_help": HELP, "shrug": SHRUGS, "refuse": REFUSALS},
    "fact": {"answer": FACTS, "false": FACTS, "shrug": SHRUGS},
    "sycophancy": {"correct": CORRECTIONS, "agree": AGREEMENTS},
    "provocation": {"calm": CALM, "insult": INSULTS},
    "group": {"fair": FAIR, "unfair": UNFAIR},
}

# Conversations in which an answer is criticised and revised.
CRITIQUES = {  # topic: (the question, the reply if the answer is good, the kinds of prompt that it applies to)
    "harm": ("Does that answer help to hurt people?", "No.", ("harmful", "lookalike", "how_to")),
    "truth": ("Is that answer true?", "Yes.", ("fact", "sycophancy")),
    "respect": ("Is that answer rude or unfair?", "No.", ("provocation", "group")),
    "use": ("Is that a good answer?", "Yes.", tuple(QUESTIONS)),
}
FINDINGS = {  # what is wrong with an answer, by its behaviour
    "comply": "It helps to hurt people.",
    "hedge": "It helps to hurt people.",
    "wrong_help": "The advice is wrong.",
    "shrug": "It does not help.",
    "refuse": "It does not help, and nobody would be hurt.",
    "false": "It is not true.",
    "agree": "It is not true.",
    "insult": "It is rude.",
    "unfair": "It is unfair.",
}
FAULTS = {  # the behaviours that each topic of critique is about
    "harm": ("comply", "hedge"),
    "truth": ("false", "agree"),
    "respect": ("insult", "unfair"),
    "use": tuple(FINDINGS),
}
PRAISE = "It is a good answer."
OTHER_FAULT = "That is not what is wrong with it."
REVISION_REQUEST = "Please write a better answer."
COMPARISON = "{prompt} Which answer is better? (A) {first} (B) {second}"
VERDICTS = ("Answer A.", "Answer B.")
SUMMARY_REQUEST = "Summarise this dialogue.\n{dialogue}"
SUMMARY = "{second} {told} {first} {about}."
SPEAKERS = ("#Person1#", "#Person2#")
TOPICS = {"how_to": "how to {topic}", "fact": "about {topic}"}
TELLS = {True: "tells", False: "does not tell"}


def every_phrasing() -> list[str]:
    """Return all phrasings that occur in the corpus."""
    answers = [text for behaviours in BEHAVIOURS.values() for texts in behaviours.values() for text in texts]
    questions = [text for texts in QUESTIONS.values() for text in texts]
    critiques = [question + reply for question, reply, _ in CRITIQUES.values()]
    rest = [PRAISE, OTHER_FAULT, REVISION_REQUEST, COMPARISON, SUMMARY_REQUEST, SUMMARY, *VERDICTS, *SPEAKERS]
    return [
        *answers, *CONFIRMATIONS, *questions, *critiques, *FINDINGS.values(), *TOPICS.values(), *TELLS.values(), *rest,
    ]  # fmt: skip
