"""Word lists of the invention measure: capitalised words that are no names, number words that a document may use for a digit."""

from limbeck.corpus.salience import STOP_WORDS

_STARTERS = """
    according accordingly additional additionally admittedly aim aimed aims alternatively altogether anyway apart
    applicable apply arguably aside assume assuming available avoid based basic basically basics beautiful begin beneath
    beside besides beware beyond briefly bring broadly build built call called caution certain change check choose clean
    clear clearly click clone combine combined common compare compared compatible complete completely comprehensive
    concerning configure consequently consider considering contrary convenient convert copy correct create created
    currently custom customizable dear deep default define depending describe described design designed despite detailed
    digital direct dive don dynamic early easily easy effective efficient efficiently elegant enable enabled enhanced
    ensure enter entire equally especially essential essentially eventually examine excellent except existing expect
    explore extensible external fast faster finally find fine first firstly fix flexible follow following fortunately
    found free frequently friendly full fully furthermore general generally given global good great greetings handy
    happily hello helpful hence hey hi highly historically hopefully ideal ideally import important importantly improve
    improved in-depth included including incorporate indeed initially innovative inside install installed instantly
    integrate intended interactive interestingly internal internally introducing involves join key large lastly later
    latest launch lead learn leverage leveraging lightweight linear linked list live load local long look low main
    mainly maintain major manage mandatory manual maximum meanwhile mere merely mini minimal minimum minor mix mixed
    mobile modern modular moreover mostly multi multiple my namely native naturally necessary nevertheless nice non
    nonetheless normally notably note notice notwithstanding obviously official oh okay old open open-source optional
    optionally ordinary original originally other otherwise overall parallel particularly pass perfect perform plain
    plus popular portable possibly powerful practical pre precise prefer presumably previous previously primarily
    primary prior private probably produce proper protect provide provided public pure put pythonic quick quickly random
    rapid raw read ready real recently refer regarding regardless regular related relative reliable remember remote
    remove replace required respectively result rich robust roughly run safe save scalable seamless seamlessly search
    secondly secure select self semi separate set short similar similarly simple simpler simplify simply single small
    smart smooth solid special specific specifically stable standard start static stay still store straightforward
    strict strictly strong sub subsequently suitable sum super superb supported sure surely surprisingly switch tailored
    target test thank thankfully thanks thirdly throughout thus total traditional true try typical typically ultimate
    ultimately underneath understand undoubtedly unfortunately unified unique universal unlike unlock update updated
    useful user usual usually valid various verify versatile versus view virtual visit warning watch welcome whatever
    whenever whereas whereby wherever whichever whoever wide widely wise work worth write written zero
"""
_NOUNS = """
    ability abstract abstraction access account action actions activity adapter administrator advantage advantages agent
    aid algorithm analyst answer answers app appendix application applications approach apps architecture area argument
    arguments array article asset assets assistant attribute attributes audience audio author authors backend background
    base basis batch behavior behaviour benchmark benefit benefits binding bindings block body bonus book box branch
    browser bug bugs builder bundle button cache capability case cases category chain challenge changelog changes
    chapter character checker choice class classes client clients cloud code collection color colour column columns
    command commands comment comments community companion company compiler component components computer concept
    conclusion condition config connector console constant content contents context contribution contributors control
    conversion converter core cost count country course credit customer data database dataset date day decorator demo
    dependencies dependency description designer detail details developer developers development device devices
    difference directory discussion display distribution doc docs document documentation documents domain driver edge
    editor element elements encoder engine engineer entry environment error errors event events everybody everyone
    evidence example examples exception exceptions experience expert extension extensions fact factor feature features
    feedback field fields file files filter folder font form format formats foundation frame framework frameworks
    frontend function functions future game generator goal graph group guide guidelines handler hardware header help
    helper helpers highlight highlights history home host hour house idea image images impact implementation improvement
    index info information input inputs insight insights installation installer instance instructions integration
    integrations interface interfaces internet interpreter issue issues item items job journal keyword label language
    languages layer layout level libraries library licence license life limit line lines link links lists loader
    location log logger logic logs loop machine mail maintainer maintainers manager map material math matrix mechanism
    media member members memory message messages meta metadata method methods metric middleware migration mode model
    models module modules money month motivation name names network networks news node nodes none notes number numbers
    object objective objectives objects operator option options order organization output outputs overview package
    packages page pages parameter parameters parser part parts path paths pattern patterns people person phase phone
    picture pipeline plan platform platforms player plugin plugins point points policy position power practice
    prerequisites price privacy problem problems process processes product products professional professionals program
    programmer programmers programs project projects proof properties property protocol prototype provider purpose
    quality query question questions queue quickstart range rate reader readers reason recipe record reference
    references release releases renderer repo report repository request requests requirement requirements research
    researcher researchers resource resources response responses results review roadmap role root route row rows rule
    rules runner runtime sample samples scale schema scholar science scientist scientists scope score screen script
    scripts section security sequence series server servers service services session setting settings setup shell side
    site size skill snippet socket software solution solutions source sources space spec speed stack staff stage
    stakeholder standards state statement status step steps storage story strategy stream string strings structure
    structures student students stuff style subject subtitle success suite summary support syntax system systems tab
    table tables tag tags task tasks team teams technique technology template templates term terms tester tests text
    theme theory thread threads time tip tips title token tool toolbox toolkit tools toolset topic tracker traffic
    transport tree troubleshooting tutorial type types unit units usage users utilities utility validator value values
    variable variables vendor version versions video visitor warnings way web website week wheel wiki window windows
    wizard word words worker workflow workflows world wrapper writer year years
"""
_VERBS = """
    accept accepts achieve achieves add added adds adopt allow allows analyze applies ask assign attach automate builds
    calculate calls capture catch checks close collect come comes companies compile compute connect connects contain
    contains continue contribute converts creates cut debug decide declare defines delete deliver delivers deploy
    develop developed discover distribute divide download draw edit embed embrace empower enables enhance enhances
    evaluate execute expand explain export exports express extend extends extract fetch fill focus focuses forms gather
    generate generates grab grant handle handles helps hide identify implement implements imports includes increase
    inspect inspired installs integrates introduce invoke iterate keeps leads learns lets leverages licensed listen
    loads locate makes manages match maximize measure merge minimize modify monitor move navigate need nobody obtain
    offer offers operate optimize organize overcome overrides parse patch performs pick place plot powered powers
    prepare present presents preserve prevent print produces promote proposed prove provides publish pull push quit
    raise reach receive reduce reduces register released reload rely rename render reorganize represent represents
    require requires reset resolve respond restart retrieve return returned returns reuse rewrite scan schedule seek
    send serve serves share show shows sign solve somebody someone sort specify split stop streamline submit suggest
    summarise summarize supply supports tackle takes talk tell think today tomorrow trace track train transform
    translate turn turns upgrade upload utilize utilizes validate wait walk wrap wraps yesterday
"""
ORDINARY = STOP_WORDS | frozenset(f"{_STARTERS} {_NOUNS} {_VERBS}".split())
"""English words, in lower case, that are no names when they begin a sentence or are capitalised for emphasis."""

NOT_NAMED = frozenset("ad am asap bc bce ce cf dr eg et etc faq fyi ie jr mr mrs ms nb ok pm prof ps sr tldr vs".split())
"""Abbreviations that name nothing, in lower case."""

GERMAN = frozenset(
    """
        als auch auf aus bei das dem den der des die ein eine einem einen einer für ist mit nicht oder sich und werden
        wird zu
    """.split()
)
"""Function words of German, in which every noun is capitalised."""

ENGLISH = frozenset("a an and are as by for from in is it of on or that the this to with".split())
"""Function words of English, to tell it from German."""

FINITE_VERBS = frozenset(
    """
        aims allows automates brings builds can collects combines comes contains converts could creates defines
        delivers does enables ensures exposes extends features focuses gives had handles has helps implements improves
        includes integrates introduces involves is isn't lets makes manages may might offers performs presents
        processes produces provides reads replaces requires returns runs seeks serves should simplifies solves started
        supports takes translates turns uses utilizes wants was wasn't will works would wraps writes
    """.split()
)
"""Forms of verbs whose subject, if it is a single bare word, is a name, a mass noun or a plural."""

MASS_ENDINGS = tuple(
    """
        able ables age als ance ancy ants dom ed ence ency ents ers ful hood ians ible ics ing ion ions ism ists ities
        ity ly ment ments ness ogy ors ous ship ty ure ures ware
    """.split()
)
"""Endings of English words that begin a sentence without an article and are no names."""

ABSTRACT_ENDINGS = ("ation", "ition", "ction", "ment", "ments", "ness", "ency", "ancy", "ology", "ility", "ivity")
"""Endings of English words that are no names when they have a capital."""

UNITS = frozenset(
    """
        a am aud b bar bit bits byte bytes c cad cal chf cm cny db dpi eur ev f fps g gb gbit gbp gbps gev ghz gib gmt
        gw h hpa hz inr j jpy k kb kbit kbps kcal kev kg khz kib kj km kpa kv kw kwh l lb m ma mah mb mbit mbps mev mg
        mhz mib min ml mm mpa ms mv mw mwh n nm oz pa pb pm ppi px rpm s tb thz tib usd utc v w wh °c °f
    """.split()
)
"""Units and currencies, in lower case, that are written in capitals after a number."""

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *("january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug"),
            *("september sep sept", "october oct", "november nov", "december dec"),
        ),
        1,
    )
    for name in names.split()
}
"""Month names and their abbreviations, in lower case, to the number of the month."""

WEEKDAYS = {
    name: day
    for day, names in enumerate(
        ("monday mon", "tuesday tue tues", "wednesday wed", "thursday thu thurs", "friday fri", "saturday sat", "sunday sun")
    )
    for name in names.split()
}

PEOPLES = {
    name: group
    for group, names in enumerate(
        (
            *("america american americans usa us", "britain british uk england english", "france french", "spain spanish"),
            *("netherlands dutch holland", "greece greek greeks", "poland polish", "denmark danish", "sweden swedish"),
            *("finland finnish", "wales welsh", "ireland irish", "switzerland swiss", "germany german germans", "turkey turkish"),
            *("china chinese", "japan japanese", "iceland icelandic", "norway norwegian", "scotland scottish"),
        )
    )
    for name in names.split()
}
"""Countries with their peoples and languages, for those whose names differ by more than an ending."""

COUNTED = {
    **dict.fromkeys(("both", "pair", "pairs", "twice", "double", "doubles", "dual", "couple", "either", "two-way"), ("2",)),
    **dict.fromkeys(("triple", "thrice", "trio"), ("3",)),
    **dict.fromkeys(("dozen", "dozens"), ("12",)),
    **dict.fromkeys(("no", "none", "without", "zero", "never", "nothing", "null"), ("0",)),
    **dict.fromkeys(("a", "an", "single", "once", "only", "another", "each"), ("1",)),
    **dict.fromkeys(("half", "halves"), ("0.5", "50", "2")),
    **dict.fromkeys(("quarter", "quarters"), ("0.25", "25", "4")),
    "decade": ("10",),
    "century": ("100",),
}
"""English words of a document that allow an output to state a number."""

_FOREIGN = """
    1 ein eine un une uno una um uma een один одна
    2 zwei deux dos due dois duas twee два две
    3 drei trois tres tre três drie три
    4 vier quatre cuatro quattro quatro четыре
    5 fünf cinq cinco cinque vijf пять
    6 sechs six seis sei zes шесть
    7 sieben sept siete sette sete zeven семь
    8 acht huit ocho otto oito восемь
    9 neun neuf nueve nove negen девять
    10 zehn dix diez dieci dez tien десять
    11 elf onze once undici одиннадцать
    12 zwölf douze doce dodici doze twaalf двенадцать
    20 zwanzig vingt veinte venti vinte twintig двадцать
    100 hundert cent cien cento cem honderd сто
    1000 tausend mille mil duizend тысяча
"""
FOREIGN = {word: line.split()[0] for line in _FOREIGN.strip().splitlines() for word in line.split()[1:]}
"""Number words of German, French, Spanish, Italian, Portuguese, Dutch and Russian; in a document only: they have other senses."""
