"""The word lists of rules.py: what may be dropped, what is opposite, and where nothing is certain."""

import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _couples(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, _, right in (couple.partition("/") for couple in text.split()))


def _phrases(text: str) -> tuple[tuple[str, str], ...]:
    """`a > b`: b may replace a; `a = b`: either may replace the other."""
    found: list[tuple[str, str]] = []
    for line in text.strip().splitlines():
        left, sign, right = re.split(r" ([=>]) ", line.strip())
        found += [(left, right), (right, left)] if sign == "=" else [(left, right)]
    return tuple(found)


def one_of(words: tuple[str, ...]) -> str:
    """A regular expression that matches any of some words, longest first."""
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word))) + ")"


# In these contexts what holds of a phrase need not hold of a wider one (or it is not a statement), so nothing is dropped.
UNCERTAIN = re.compile(
    r"(?i)\b(?:not|no|none|never|neither|nor|nobody|nothing|nowhere|without|cannot|few|fewer|little|less|least|most|all|every|each"
    r"|any|anything|anyone|only|just|if|unless|whether|until|before|than|too|rarely|hardly|seldom|barely|almost|nearly|avoid\w*"
    r"|prevent\w*|lack\w*|fail\w*|refus\w*|den(?:y|ies|ied)|doubt\w*|forbid\w*|either|except|would|instead|rather|exactly|how|what"
    r"|why|when|whenever|wish\w*|seem\w*|claim\w*|unlike|\w+n['’]t)\b"
)
# These single something out by a description, so the description must not be widened.
UNIQUE = re.compile(r"(?i)\b(?:first|last|next|second|third|same|similar|different|other|another|\w{3,}est|so|such|as)\b")
# What holds of several things together need not hold of each after these.
COLLECTIVE = re.compile(r"(?i)\b(?:both|between|together|combin\w+|or|mix\w*|among|total|number|pair|two|three|four)\b")
# A sentence of plain words: no code, no quotations, no lists.
PLAIN = re.compile(r"[A-Z](?:[\w\s,.'’%+-]|(?<= )\((?=\w)|(?<=\w)\)(?=[ ,.])|(?<=\w)/(?=\w))*\.")
NEGATED = re.compile(
    r"(?i)\b(?:not|no|none|never|neither|nor|nobody|nothing|nowhere|without|cannot|few|hardly|rarely|seldom|\w+n['’]t)\b"
)
QUANTIFIED = re.compile(
    r"(?i)\b(?:all|every|each|some|any|many|most|several|few|both|one|either|half|only|often|sometimes|usually)\b"
)
SUBORDINATE = re.compile(
    r"(?i)\b(?:that|which|who|whom|whose|if|when|while|because|although|though|where|what|how|than|as|since|unless|to|and|or|but|by)\b"
)

ADJECTIVES = _words(
    """
    small large simple fast powerful flexible lightweight modern new old popular useful robust complete efficient high-level
    low-level open-source cross-platform built-in extensible reliable stable scalable comprehensive beautiful elegant tiny big
    huge rich clean convenient consistent portable modular official advanced friendly clear nice good great strong heavy long
    short tall young red blue green white black grey wooden metal golden quiet loud clever famous expensive cheap foreign
    local public private beautiful strange serious rare broken heavy dark bright modest unusual well-known friendly detailed
    compact
    """
)
ADVERBS = _words(
    """
    quickly easily automatically efficiently also very highly fully currently directly seamlessly transparently natively
    internally actively carefully widely commonly specifically really additionally slowly silently successfully immediately
    gently proudly
    """
)
SPLICED = _words("silently carefully slowly deliberately unexpectedly reluctantly proudly repeatedly secretly gladly")

OPPOSITES = _couples(
    """
    big/small large/small fast/slow easy/difficult easy/hard simple/complicated simple/complex cheap/expensive old/new
    young/old hot/cold warm/cool empty/full open/closed safe/dangerous strong/weak rich/poor wet/dry clean/dirty heavy/light
    thick/thin wide/narrow deep/shallow long/short high/low tall/short early/late quiet/loud bright/dark smooth/rough
    soft/hard sharp/blunt true/false right/wrong correct/incorrect possible/impossible visible/invisible public/private
    static/dynamic optional/mandatory synchronous/asynchronous mutable/immutable free/paid stable/unstable reliable/unreliable
    useful/useless modern/outdated complete/incomplete safe/unsafe popular/unpopular similar/different friendly/hostile
    calm/nervous sweet/bitter fresh/stale generous/stingy polite/rude healthy/sick alive/dead asleep/awake tight/loose
    straight/crooked famous/unknown guilty/innocent temporary/permanent internal/external active/inactive
    efficient/inefficient lightweight/heavyweight brave/cowardly
    """
)
OPPOSITE_VERBS = _couples(
    """
    increases/decreases increased/decreased enables/disables accepts/rejects accepted/rejected allows/forbids starts/stops
    started/stopped begins/ends began/ended opens/closes opened/closed succeeds/fails succeeded/failed wins/loses won/lost
    rises/falls rose/fell grows/shrinks grew/shrank arrives/leaves arrived/left enters/leaves entered/left loves/hates
    loved/hated likes/dislikes liked/disliked improves/worsens improved/worsened simplifies/complicates reduces/increases
    reduced/increased remembers/forgets remembered/forgot builds/destroys built/destroyed buys/sells bought/sold
    praised/criticised praises/criticises encourages/discourages strengthens/weakens always/never above/below inside/outside
    before/after
    """
)
SYNONYMS = _couples(
    """
    big/large begins/starts began/started purchased/bought purchases/buys attempted/tried requires/needs required/needed
    assists/helps obtains/gets obtained/got quick/fast quickly/rapidly difficult/hard currently/presently primarily/mainly
    mostly/mainly frequently/often additional/extra correct/right incorrect/wrong entire/whole permits/allows provides/offers
    constructs/builds constructed/built numerous/many utilizes/uses utilize/use approximately/roughly sufficient/enough
    tiny/minuscule shut/closed speedy/fast entirely/completely fully/completely famous/well-known sick/ill quiet/silent
    clever/smart ancient/old simple/uncomplicated unable/incapable displays/shows displayed/shown shows/displays
    demonstrates/shows receives/gets modifies/changes modified/changed selects/chooses answers/replies repaired/fixed
    fixes/repairs
    """
)
PARAPHRASES = _phrases(
    """
    in order to > to
    allows you to = lets you
    allow you to = let you
    is able to > can
    are able to > can
    for example = for instance
    such as > like
    lots of = a lot of
    the majority of > most of
    in addition = additionally
    as well as > and also
    is not = isn't
    are not = aren't
    was not = wasn't
    were not = weren't
    does not = doesn't
    do not = don't
    did not = didn't
    cannot = can't
    will not = won't
    has not = hasn't
    have not = haven't
    should not = shouldn't
    it is = it's
    you will = you'll
    you are = you're
    makes it easy to > makes it simple to
    at the moment = currently
    is used to > serves to
    is required = is needed
    takes place > happens
    is situated in > is located in
    """
)


# Third person → base form: verbs after which a plain statement can be negated with "does not".
VERBS = dict(
    _couples(
        """
        supports/support provides/provide uses/use allows/allow includes/include contains/contain offers/offer creates/create
        makes/make runs/run returns/return handles/handle requires/require works/work adds/add gives/give helps/help
        needs/need takes/take enables/enable implements/implement generates/generate depends/depend defines/define
        extends/extend comes/come shows/show reads/read writes/write keeps/keep changes/change follows/follow accepts/accept
        means/mean wants/want likes/like lives/live plays/play speaks/speak opens/open leaves/leave sells/sell grows/grow
        starts/start ensures/ensure converts/convert checks/check improves/improve focuses/focus performs/perform
        produces/produce stores/store manages/manage lets/let exposes/expose
        """
    )
)
PASSIVES = dict(
    _couples(
        """
        written/wrote created/created developed/developed designed/designed built/built founded/founded released/released
        published/published started/started introduced/introduced maintained/maintained invented/invented launched/launched
        made/made added/added inspired/inspired implemented/implemented funded/funded supported/supported
        """
    )
)

_NAMES = """
    Python Java Rust Go Ruby Perl Haskell Scala Cython Swift Kotlin Fortran TypeScript JavaScript C++
    Linux Windows macOS Android FreeBSD
    Google Microsoft Amazon Facebook Apple NVIDIA Intel IBM Netflix Mozilla Twitter
    January February March April June July August September October November December
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday
    France Germany Spain Italy Portugal Sweden Japan China India Brazil Canada Mexico Egypt Turkey Greece Poland Kenya Ireland
    London Paris Berlin Madrid Rome Tokyo Boston Chicago Oslo Dublin Vienna Prague Toronto Lisbon Cairo
    Anna Peter Maria Thomas Julia David Sarah Michael Laura Daniel Emma James Alice Robert
    English French German Spanish Italian Latin Turkish Russian Japanese Greek Danish
"""
NAMES = tuple(_words(line) for line in _NAMES.strip().splitlines())
NUMBERS = dict(enumerate(_words("two three four five six seven eight nine ten eleven twelve"), 2))
