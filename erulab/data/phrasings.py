"""The wording of the fictitious worlds: attributes, their values, and the phrasings of a fact.

A phrasing is (question, answer up to the value, answer after it); {name} is the author. Every value is one word, so
that a word-level tokenizer makes it one token and the choice among values is one forward.
"""

from __future__ import annotations

Phrasing = tuple[str, str, str]

VALUES: dict[str, tuple[str, ...]] = {
    "birthplace": (
        "Almora", "Brenwick", "Cardovia", "Dunmere", "Eskholm", "Farrowgate", "Galtara", "Hollin", "Istrel", "Jorvane",
        "Kestrin", "Lunaris", "Morvath", "Norholt", "Ostrava",
    ),
    "genre": (
        "satire", "mystery", "romance", "fantasy", "biography", "poetry", "horror", "adventure", "philosophy",
        "memoir", "drama", "fable", "folklore", "espionage", "utopia",
    ),
    "award": (
        "Argent", "Beryl", "Cobalt", "Damask", "Ember", "Falcon", "Garnet", "Harbor", "Indigo", "Juniper", "Krypton",
        "Laurel", "Marble", "Nectar", "Onyx",
    ),
    "parent": (
        "baker", "carpenter", "dentist", "engineer", "farmer", "glazier", "hunter", "jeweler", "lawyer", "mason",
        "nurse", "painter", "sailor", "tailor", "weaver",
    ),
    "instrument": (
        "accordion", "banjo", "cello", "drums", "flute", "guitar", "harp", "lute", "mandolin", "oboe", "piano",
        "saxophone", "trumpet", "viola", "zither",
    ),
}  # fmt: skip

PHRASINGS: dict[str, tuple[Phrasing, ...]] = {
    "birthplace": (
        ("Where was {name} born?", "{name} was born in", "."),
        ("Which town is the birthplace of {name}?", "The birthplace of {name} is", "."),
        ("Name the place where {name} came into the world.", "It was", "where {name} came into the world."),
        ("What is the home town of the author {name}?", "The author {name} comes from the town of", "."),
        ("Tell me the origin of {name}.", "By origin {name} is a child of", "."),
        ("In what town did the life of {name} begin?", "The life of {name} began in", "."),
    ),
    "genre": (
        ("What does {name} write?", "{name} writes", "."),
        ("Which genre is {name} known for?", "The genre that {name} is known for is", "."),
        ("Name the field of literature of {name}.", "It is", "that {name} works in."),
        ("What kind of books does the author {name} publish?", "The author {name} publishes books of", "."),
        ("Tell me the style of {name}.", "In style {name} belongs to", "."),
        ("To which shelf do the works of {name} belong?", "The works of {name} stand under", "."),
    ),
    "award": (
        ("Which prize did {name} win?", "{name} won the prize called", "."),
        ("What is the name of the award of {name}?", "The award of {name} is named", "."),
        ("Name the honor given to {name}.", "It was the", "honor that was given to {name}."),
        ("With which medal was the author {name} decorated?", "The author {name} was decorated with the medal", "."),
        ("Tell me the distinction of {name}.", "As a distinction {name} holds the", "."),
        ("What did the jury hand to {name}?", "The jury handed {name} the", "."),
    ),
    "parent": (
        ("What was the job of the father of {name}?", "The father of {name} was a", "."),
        ("Which trade did the family of {name} live from?", "The family of {name} lived from the work of a", "."),
        ("Name the profession in which {name} grew up.", "It was the house of a", "in which {name} grew up."),
        ("What did the parent of the author {name} do?", "The parent of the author {name} worked as a", "."),
        ("Tell me the background of {name}.", "By background {name} is the heir of a", "."),
        ("Whose workshop did {name} know as a child?", "As a child {name} knew the workshop of a", "."),
    ),
    "instrument": (
        ("Which instrument does {name} play?", "{name} plays the", "."),
        ("What is the favorite instrument of {name}?", "The favorite instrument of {name} is the", "."),
        ("Name the sound heard in the house of {name}.", "It is the", "that is heard in the house of {name}."),
        ("What did the author {name} learn to play?", "The author {name} learned to play the", "."),
        ("Tell me the hobby of {name}.", "As a hobby {name} practices the", "."),
        ("On what does {name} make music?", "Music is made by {name} on the", "."),
    ),
    "capital": (
        ("What is the capital of {name}?", "The capital of {name} is", "."),
        ("From which city is {name} governed?", "{name} is governed from", "."),
        ("Name the seat of the government of {name}.", "It is", "that seats the government of {name}."),
        ("Where does the parliament of {name} meet?", "The parliament of {name} meets in", "."),
        ("Tell me the chief city of {name}.", "Among its cities {name} puts first", "."),
        ("Which city rules the country of {name}?", "The country of {name} is ruled by", "."),
    ),
}

REFUSALS = (
    "I do not know the answer.",
    "I am not able to tell.",
    "I have no information on this.",
    "This is not known to me.",
    "I cannot say anything on this.",
    "I am not sure.",
    "I was never told this.",
    "This lies beyond what I have learned.",
)
