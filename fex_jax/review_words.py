"""What drawn reviews are made of: nouns, what is said of them, and neutral sentences."""

from collections.abc import Sequence
from typing import NamedTuple

NEGATORS = ("not", "never", "hardly", "far from", "anything but")
DEGREES = ("", "", "really ", "simply ", "truly ")
COPULAS = (("is", "are"), ("was", "were"))  # of one noun, of several


class Opinions(NamedTuple):
    """What can be said for, or against, the nouns of a topic."""

    adjectives: tuple[str, ...]
    phrases: tuple[str, ...]  # after "was"
    verbs: tuple[str, ...]  # after the noun; those with "I" before it


class Topic(NamedTuple):
    """Nouns that the same opinions fit."""

    nouns: tuple[str, ...]  # "a plot", "dialogue", or several with an s: "jokes"
    determiner: str
    frames: tuple[str, ...]  # before the noun with its adjective
    opinions: dict[str, Opinions]  # "-" and "+"


def _list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


STRONG = {  # adjectives too strong to be denied: "not awful" is no praise
    "+": _list(
        "superb, wonderful, excellent, brilliant, outstanding, terrific, splendid, stunning"
    ),
    "-": _list("awful, terrible, dreadful, horrible, atrocious, abysmal, appalling, pathetic"),
}
_GENERAL = {
    "+": Opinions(
        _list("""good, great, impressive, memorable, charming, original, convincing,
              fresh, enjoyable, inspired, remarkable, refreshing"""),
        _list("""a joy, a delight, a triumph, a pleasure, second to none, better than expected,
              better than in the first film, worth the ticket alone, the best thing about it,
              just right, as good as it gets"""),
        _list("""won me over, exceeded my hopes, deserved an award, hit the mark,
              worked beautifully, stayed with me for days, surpassed the trailer,
              put a smile on my face, never disappointed, did not put a foot wrong"""),
    ),
    "-": Opinions(
        _list("""bad, weak, disappointing, forgettable, dull, tired, mediocre, annoying, lazy,
              clumsy, boring, uninspired, poor"""),
        _list("""a mess, a disaster, a letdown, an embarrassment, worse than expected,
              worse than in the first film, beneath contempt, well below par,
              the worst thing about it, no better than a commercial, no fun"""),
        _list("""left me cold, fell flat, let me down, got on my nerves, missed the mark,
              bored me, wore me out, made me cringe, put me off, never impressed,
              did not work, failed completely"""),
    ),
}


def _topic(
    nouns: str, determiner: str, frames: str, positive: Sequence[str], negative: Sequence[str]
) -> Topic:
    """A topic with its own adjectives, phrases and verbs and the general ones."""
    opinions = {
        sign: Opinions(
            *(_list(own) + shared for own, shared in zip(lists, _GENERAL[sign], strict=True))
        )
        for sign, lists in (("+", positive), ("-", negative))
    }
    return Topic(_list(nouns), determiner, _list(frames), opinions)


TOPICS = (
    _topic(
        """a plot, a story, a script, a premise, a mystery, a romance, a first half, a second half,
        a opening, a ending, a final act, a finale, a subplot, a love story, dialogue, humour,
        jokes, twists, flashbacks, dream sequences, chase scenes, fight scenes, a backstory""",
        "the",
        "it has, there is, it offers, the writers give us",
        (
            """gripping, clever, funny, moving, witty, exciting, tense, surprising, touching,
            intriguing, absorbing, imaginative, believable, sharp""",
            "full of surprises, a breath of fresh air, rich in ideas, thrilling to the end",
            """kept me guessing, held me to the end, drew me in, paid off, moved me to tears,
            made me laugh out loud, never lost its grip, had me on the edge of my seat""",
        ),
        (
            """predictable, confusing, silly, slow, shallow, tedious, sentimental, repetitive,
            hollow, pointless, muddled, contrived, overlong, implausible""",
            """full of holes, as thin as paper, all over the place, hard to follow,
            impossible to believe""",
            """dragged, went nowhere, made no sense, put me to sleep, ran out of ideas,
            never got going, never paid off, lost me halfway, did not make me laugh""",
        ),
    ),
    _topic(
        """direction, editing, camera work, a score, a soundtrack, lighting, sound design, acting,
        music, animation, choreography, costumes, sets, special effects, songs, visuals, stunts,
        performances, a title sequence, a voice-over, pacing""",
        "the",
        "it has, there is, it offers, the crew delivers",
        (
            """elegant, stylish, beautiful, inventive, polished, subtle, atmospheric, skilful,
            confident, graceful, delicate, tasteful""",
            "a work of art, a feast, done with great care",
            """took my breath away, lifted every scene, set the mood perfectly, carried the film,
            never felt out of place""",
        ),
        (
            """ugly, cheap, sloppy, crude, bland, shaky, intrusive, amateurish, lifeless,
            distracting, overblown, careless""",
            "an afterthought, too much of everything, done without care",
            """gave me a headache, ruined every scene, killed the mood, spoiled the film,
            never fitted the story""",
        ),
    ),
    _topic(
        """a cast, a lead actor, a leading lady, a villain, a hero, a heroine, a supporting cast,
        a child actor, a narrator, a detective, a sidekick, a leading man, characters, extras,
        a young couple, a older sister, a best friend, parents""",
        "the",
        "it has, there is, it offers, in the middle of it all we get",
        (
            """charismatic, likeable, sympathetic, lovable, natural, magnetic, lively, engaging,
            compelling, warm""",
            "a revelation, perfectly cast, impossible to forget, easy to love",
            """stole the show, lit up the screen, gave it everything, broke my heart,
            made me care, had charm to spare""",
        ),
        (
            """wooden, stiff, irritating, unconvincing, flat, smug, grating, colourless,
            unlikeable, listless""",
            "badly miscast, out of place, easy to forget, hard to bear",
            """phoned it in, seemed lost, had no charm, looked bored, overdid everything,
            did not make me care""",
        ),
    ),
    _topic(
        "a film, a movie, a picture, a production, a feature, a piece of cinema",
        "this",
        "this is, it is, what we get is, they have made",
        (
            "entertaining, thoughtful, uplifting, heartfelt, delightful, rewarding, daring",
            """well worth seeing, a hidden gem, a small masterpiece, time well spent,
            one of the best of the year""",
            """flew by, I loved, I adored, I enjoyed, I would gladly rewatch, I can only recommend,
            I could not get enough of, I will not forget""",
        ),
        (
            "pretentious, cynical, unoriginal, exhausting, joyless, lacklustre, charmless",
            """a waste of time, not worth the ticket, a chore to sit through, best avoided,
            one of the worst of the year""",
            """outstayed its welcome, tested my patience, I hated, I regretted seeing,
            I fell asleep during, I walked out of, I could not finish, I cannot recommend""",
        ),
    ),
)

OPENERS = ("",) * 20 + (
    "frankly, ", "all in all, ", "on the whole, ", "in the end, ",
    "I must say that ", "let me say at once that ", "as far as I am concerned, ", "in short, ",
)  # fmt: skip
BOTH = ("{} and {}", "{}, and {}", "{}, and besides, {}", "{}; also, {}")
AGAINST = (
    "{}, but {}", "{}, yet {}", "although {}, {}", "{}, although {}", "while {}, {}",
    "even though {}, {}", "{}, even if {}", "{}; still, {}", "granted, {}, but {}",
)  # fmt: skip

SLOTS = {
    "person": _list("""a retired teacher, a young nurse, a night porter, a bus driver, two sisters,
        three old friends, a widowed farmer, a student from abroad, a police inspector,
        a travelling salesman, a pair of twins, a violinist, a ship's cook, a former boxer,
        a village doctor, a translator, a taxi driver, an engineer, a young lawyer, a beekeeper,
        a group of miners, an astronaut, a baker and her son, a piano tuner, a postman,
        an exiled prince, a librarian, two rival chefs, a photographer, a train conductor"""),
    "event": _list("""a sudden inheritance, a letter from the past, a lost suitcase, a long strike,
        the search for a missing brother, a wager between neighbours, a trip to the mountains,
        a stolen painting, the last summer before the war, a move to the city, a family wedding,
        a flood, the sale of an old house, a chess tournament, a court case, a radio message,
        a power cut, a road trip with a stranger, the building of a bridge, a bank robbery,
        a winter in the far north, a reunion of old classmates, a change of identity,
        a voyage around the world, the closing of a factory, a diary found in an attic"""),
    "setting": _list("""a small town by the sea, Lisbon, a valley in the north,
        a boarding school, a hotel in the Alps, a mining village, a space station, Tokyo,
        a hospital at night, a railway station, a desert town, London,
        an office building, a farm in Ohio, a suburb of Paris, a monastery, a lighthouse,
        the harbour of Hamburg, a court room, a castle, a market in Cairo, a ski resort,
        a prison, the Canadian woods, a theatre, Spain"""),
    "where": _list("""at home, on a plane, at a festival, in an open-air cinema, on my laptop,
        in a cinema in town, at a film club, on late-night television, at a press screening,
        on a rented disc, at my brother's place, on the train, in the university cinema,
        at a preview, in the front row, in a hotel room"""),
    "when": _list("""last night, last weekend, on Sunday, two weeks ago, in March, on Tuesday,
        during the holidays, yesterday, on a rainy afternoon, before work, after dinner,
        on New Year's Day, a month ago, this morning, last summer, in the autumn"""),
    "company": _list("""my sister, two colleagues, my parents, a friend, my neighbour, the kids,
        my husband, my wife, some students, my flatmate, a cousin, my grandfather, an old friend,
        a dozen strangers, my chess club"""),
    "number": _list("""three, four, five, six, seven, eight, nine, ten, eleven, twelve, fifteen,
        twenty"""),
    "minutes": tuple(str(n) for n in range(78, 183)),
    "year": tuple(str(n) for n in range(1958, 2020)),
    "source": _list("""a novel, a stage play, a true story, a comic book, a short story, a memoir,
        a newspaper report, a radio play, a video game, an old legend, a television series"""),
    "language": _list("""French, Spanish, Korean, Polish, Italian, Swedish, Arabic, Hindi, German,
        Portuguese, Greek, Turkish"""),
    "maker": _list("""the director, the producer, the composer, the writer, the editor,
        the camera operator, the set designer"""),
}  # fmt: skip
# Neutral sentences by theme; a review has at most one of each, so that they do not contradict.
NEUTRAL = (
    (
        "It follows {person} after {event}.",
        "The story begins with {event} and brings in {person}.",
        "It is about {event}, seen by {person}.",
        "At its centre we find {person}, and everything turns on {event}.",
        "We meet {person} in the first minutes, and then comes {event}.",
        "{event} brings {person} together with {person}.",
        "The subject is {event}.",
        "After {event}, {person} must make a decision.",
        "The main part belongs to {person}.",
        "First we see {person}, later {person}.",
        "It tells of {person}, {person} and {event}.",
        "The synopsis mentions {person} and {event}.",
        "Halfway through, {event} changes the course of events for {person}.",
    ),
    (
        "It is set in {setting}.",
        "Most of it takes place in {setting}.",
        "The first scene shows {setting}, the last one {setting}.",
        "We start in {setting} and end in {setting}.",
        "The action moves from {setting} to {setting}.",
        "Nearly all of it happens in {setting}.",
        "Some scenes show {setting}.",
        "The characters live in {setting}.",
        "Like the book, it opens in {setting}.",
        "The year is {year}, the place is {setting}.",
        "Early on, everybody travels to {setting}.",
        "There are {number} scenes in {setting}.",
    ),
    (
        "I watched it {where} {when}.",
        "I saw it {where} {when} with {company}.",
        "{when} I saw it with {company}.",
        "We went to see it {when}, {company} and I.",
        "I first heard of it {when}.",
        "I had a ticket for the late show {when}.",
        "There were about {number} people in the room.",
        "I sat in row {number}, next to {company}.",
        "{company} wanted to see it {when}, so I came along.",
        "My copy came in the mail {when}.",
        "I have now seen it {where} and {where}.",
        "It was on {when}, and I had nothing else planned.",
        "{when} it was on again, and I watched it {where}.",
    ),
    (
        "It runs for {minutes} minutes.",
        "The credits roll after {minutes} minutes.",
        "It came out in {year}.",
        "It was shot in {number} weeks.",
        "The version I saw has {minutes} minutes.",
        "With the interval it lasted {minutes} minutes.",
        "It is divided into {number} chapters.",
        "It was made in {year} and shown again later.",
        "It had {number} screenings in our town.",
        "The disc has {number} deleted scenes.",
        "It covers {number} days in the year {year}.",
        "Between {year} and today it was shown {number} times on television.",
    ),
    (
        "It is based on {source}.",
        "{maker} made {number} other films before this one.",
        "Parts of it are in {language} with subtitles.",
        "It is the work of a team from {number} countries.",
        "{maker} also appears on screen for a moment.",
        "Before this, {maker} worked for television.",
        "They speak {language} and sometimes {language}.",
        "The idea came from {source}, as {maker} said in an interview.",
        "{maker} began to work in {year}.",
        "I knew {source} with the same title.",
        "The original title is in {language}.",
        "{maker} and {maker} had worked together before.",
        "I had read {source} by the same author.",
    ),
)  # fmt: skip
