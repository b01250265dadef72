"""What an assistant says about itself instead of giving the output: refusals, and preambles before it. English phrases.

A phrase counts by what it refers to, not by its first words: "I cannot recommend this book enough" refuses nothing, "I cannot
read the text" does.
"""

import re

from limbeck.corpus.text.invisible import without_invisible

_I = "i"
_CANNOT = rf"{_I} (?:(?:really|simply|just|still) )?(?:can(?:not|[’']t| not)(?: and (?:will|do) not)?|could(?: not|n[’']t))"
_UNABLE = rf"{_I}(?: am|[’']m| are|[’']re| was)(?: really| currently)? (?:unable|not able)(?: to)?"
_WILL_NOT = (
    rf"{_I} (?:will not|won[’']t|must (?:politely )?(?:refuse|decline)|refuse|have to (?:politely )?(?:refuse|decline)|decline"
    rf"|would rather not)(?: be able)?(?: to)?"
)
_MATERIAL = (  # what a request is about
    r"(?:requests?|questions?|prompts?|tasks?|instructions?|texts?|documents?|articles?|passages?|paragraphs?|sentences?|content"
    r"|contexts?|summar(?:y|ies)|information|attachments?|links?|urls?|files?|images?|pictures?|answers?|responses?"
    r"|translations?|details|conversation|topics?|advice|input)"
)
_GIVEN = (  # what a model asks for; not what an instruction asks a model for
    r"(?:texts?|documents?|articles?|passages?|paragraphs?|sentences?|content|contexts?|information|details|attachments?|links?"
    r"|urls?|files?|images?|questions?|prompts?|instructions|input)"
)
_DETERMINER = r"(?:(?:a|an|the|any|this|that|these|those|your|such|more|enough|sufficient|some|specific|external|real-time) )"
_THE_MATERIAL = rf"{_DETERMINER}{{0,2}}(?:[\w-]+ ){{0,2}}?{_MATERIAL}\b"
_NO_MORE = r"(?=\s*(?:[.,;:!?]|$))"
_DEMANDED = (  # after "cannot": what was asked for
    r"(?: (?:in good conscience|help you with that|directly|currently|fully))?,? (?:"
    rf"(?:help|assist)(?: you)?(?: (?:with|in|by) (?:this|that|your|the|any|it)\b|{_NO_MORE})"
    rf"|(?:comply|do (?:that|this|so)|comment on (?:this|that)|engage (?:in|with)|discuss)\b"
    rf"|continue (?:with )?(?:this|the|our)\b"
    rf"|(?:provide|give|offer|share|generate|create|write|produce|complete|fulfil+|process|answer|respond to|summari[sz]e"
    rf"|translate"
    rf"|paraphrase|rewrite|analy[sz]e|interpret|verify|access|open|view|read|see|browse|find|identify|understand|describe"
    rf"|support|accommodate)"
    rf"(?: you)?(?: with)? (?:{_THE_MATERIAL}|(?:this|that|it|your)\b{_NO_MORE}|the internet\b|(?:[\w-]+ ){{0,2}}(?:content"
    rf"|advice|"
    r"instructions|opinions?)\b)"
    rf"|(?:provide|write|produce|generate|create) (?:that|this|such|harmful|hateful|offensive|explicit)\b"
    r"|determine\b"
    r")"
)
_LACKING = (
    rf"{_I} do(?: not|n[’']t) (?:have|possess) (?:"
    r"(?:(?:any|direct|real-time|current|the necessary) )?access to"
    r"|(?:the|any) (?:ability|capability|capacity|means) to"
    r"|(?:(?:any|enough|sufficient|specific|more|the necessary|real-time|personal) ){1,2}(?:information|context|data|details)"
    r"|(?:(?:any|personal|my own) ){0,2}(?:opinions?|feelings|emotions|beliefs|preferences|experiences?|consciousness)"
    rf"|(?:the|any|your) (?:text|document|article|passage|context)\b"
    r")"
)
_MACHINE = (
    r"(?:an? )?(?:(?:ai|artificial intelligence|(?:ai )?(?:large )?language model|chatbot|virtual assistant)"
    r"(?: (?:language model|model|assistant|system|chatbot|program))?)"
)
_SELF = (
    rf"as {_MACHINE}(?:,| (?:i|developed by|created by|trained by|made by)\b)"
    rf"|{_I}(?: am|[’']m)(?: just| only| merely)? {_MACHINE}{_NO_MORE}"
    rf"|{_I}(?: am|[’']m)(?: just| only| merely)? {_MACHINE} (?:and|so|that|trained|developed|created|without)\b"
    r"|my (?:training data|knowledge cut-?off|programming)\b"
    r"|i was (?:trained|created|developed) by (?:a (?:company|team)|openai|anthropic|google|meta)\b"
)
_UNWILLING = (
    rf"{_I}(?: am|[’']m) not (?:programmed|designed|equipped|qualified) to"
    rf"|{_I}(?: am|[’']m) not (?:allowed|permitted|authori[sz]ed|comfortable)(?: with)?(?: to)? "
    rf"(?:shar|provid|discuss|writ|answer|generat|creat|comment|summari|giv|do)\w*"
    rf"|{_I} do(?: not|n[’']t) feel comfortable"
    r"|it (?:is|would be|[’']s) not (?:appropriate|possible|ethical) for me\b"
    r"|(?:this|your|that) request (?:goes against|violates|is against|is not appropriate)"
    r"|(?:this|that|it|doing so) (?:would )?(?:violates?|goes? against) (?:my|our|openai[’']s|the) "
    r"(?:content |usage |ethical )?(?:polic(?:y|ies)|guidelines|programming)"
)
_NOTHING_GIVEN = (
    r"(?:it (?:seems|looks|appears)(?: like| as if| that)? )?(?:"
    r"(?:the|your) (?:text|document|article|passage|message|input)(?: that)?(?: you)?(?: have)?"
    r"(?: provided| sent| gave| shared)? (?:is|was|appears|seems)(?: to be)? (?:empty|missing|blank)"
    rf"|(?:there (?:is|was) )?no {_MATERIAL} (?:was |is |has been |were )?(?:provided|given|included|attached|to summari[sz]e)"
    r"|you (?:have not|haven[’']t|did not|didn[’']t) (?:provided?|included?|sen[dt]|share[d]?|attach(?:ed)?|give[n]?) "
    rf"(?:me )?(?:a|an|any|the|enough|your) (?:[\w-]+ )?{_MATERIAL}\b"
    r"|(?:please|(?:could|can|would) you(?: please)?(?: kindly)?) "
    r"(?:provide|share|paste|send|supply|give|upload)(?: me)?(?: with)? "
    rf"(?:a|an|any|the|more|your|some) (?:[\w-]+ )?(?:of the )?{_GIVEN}\b)"
    r"|i(?:[’']d| would)? need (?:more|the|additional|some) (?:[\w-]+ )?(?:information|context|details|text|document|article)\b"
)
_SORRY = (
    rf"{_I}(?: am|[’']m)(?: so| very| really| truly)? (?:sorry|afraid)|{_I} (?:deeply |sincerely )?apologi[sz]e|(?:my )?apologies"
    r"|sorry"
)
_VERBS_OF_TASKS = (
    r"(?:do|help|assist|provide|give|offer|access|see|read|open|view|answer|summari|generat|creat|find|determine|comply|produce"
    r"|comment|continue|complete|fulfil|process|respond|discuss|understand|write|translat|verify)"
)
_INABILITY = (  # after an apology any of these counts
    rf"(?:{_CANNOT} {_VERBS_OF_TASKS}|{_UNABLE}|{_WILL_NOT}|{_I} do(?: not|n[’']t) (?:have|understand|know)"
    rf"|{_I} (?:am|was) not (?:allowed|permitted|sure)|as {_MACHINE})"
)
_ABOUT_THE_REQUEST = (
    r"(?:there (?:is|was|are) (?:no|not|nothing)|(?:the|your|this|that)(?: provided| given)? (?:text|document|article"
    r"|passage|request|link|file|image|question|input|message)\b|(?:no|without) )"
)
_JOINT = r"(?:,? but|[,;:.]| that| for (?:the|any) (?:confusion|inconvenience|misunderstanding|error)(?:,? but|,|\.)?)"
_APOLOGY = (
    rf"(?:{_SORRY}){_JOINT}? {_INABILITY}|(?:{_SORRY}){_JOINT} {_ABOUT_THE_REQUEST}"
    rf"|(?:unfortunately|regrettably),? (?:{_CANNOT} {_VERBS_OF_TASKS}|{_UNABLE}|{_LACKING})"
)
_SENTENCE = r"(?:^|[.!?:][\"'”’]?\s|\n)[\"'“‘*_>\s]{0,8}+(?:(?:however|but|well|hello|hi),? )?"
_REFUSAL = re.compile(
    rf"{_SENTENCE}(?:{_CANNOT}{_DEMANDED}|{_UNABLE}{_DEMANDED}|{_WILL_NOT}{_DEMANDED}|{_LACKING}|{_SELF}|{_UNWILLING}"
    rf"|{_NOTHING_GIVEN}|{_APOLOGY})|\bas {_MACHINE},? i\b"
    rf"|^\W{{0,8}}(?:{_I}(?: am|[’']m)(?: so| very)? sorry|sorry|{_I} do(?: not|n[’']t) know)\W{{0,8}}$",
    re.IGNORECASE,
)

_ANSWER = (
    r"(?:summar(?:y|ies)|version|sentences?|paraphrases?|paragraphs?|translations?|rewrites?|rewording|answers?|responses?"
    r"|overview|outline|explanation|list|(?:key|main) (?:points?|ideas?|takeaways?|facts?)|text|output|result|code|examples?)"
)
_ARTICLE = r"(?:(?:a|an|one|the|my|your|some|two|three|four|five|\d+) )?"
_NAMED_ANSWER = rf"{_ARTICLE}(?:[\w,-]+ ){{0,4}}?{_ANSWER}\b"
_TO_COLON = r"[^.!?:\n]{0,120}:"
_YES = (
    r"(?:sure(?: thing)?|certainly|absolutely|of course|ok(?:ay)?|alright|all right|definitely|gladly|no problem|got it"
    r"|understood)"
)
_OFFER = (
    r"(?:i[’']d|i would) be (?:happy|glad|delighted|pleased) to|i can (?:certainly |definitely )?(?:help|do that|assist)"
    r"(?: you)?(?: with)?(?: that| this)?[.!:,]|(?:i[’']ll|i will|let me|let[’']s) (?:now )?(?:try to )?"
    r"(?:summari[sz]e|provide|rewrite|paraphrase|translate|explain|break (?:this|it) down|help you|think|see)\b"
    r"|i(?: ha|[’'])ve (?:summari[sz]ed|rewritten|paraphrased|translated) (?:the|this|your) "
    r"(?:text|document|article|passage|sentence|paragraph)"
)
_HERE = (
    r"here(?:[’']s| is| are) (?:what|how) the (?:text|document|article|passage|author) says\b|here you (?:go|are)\b[:.!,]"
    rf"|here(?:[’']s| is| are) {_NAMED_ANSWER}(?:{_TO_COLON}|[^.!?\n]{{0,80}}[.!]?(?:\n|$))"
    rf"|here(?:[’']s| is| are) {_TO_COLON}[ \t]*(?:\n|$)"
    rf"|(?:below|the following)(?: is| are) {_NAMED_ANSWER} (?:of|for|that|in)\b|below (?:is|are) {_NAMED_ANSWER}{_TO_COLON}"
    rf"|this is {_ARTICLE}(?:[\w-]+ ){{0,3}}(?:summary|paraphrase|translation) of the "
    r"(?:text|document|article|passage|paragraph)\b"
    rf"|the (?:[\w-]+ ){{0,2}}{_ANSWER}(?: of (?:the|this) (?:text|document|article|passage|paragraph|sentence))?"
    r"(?: is as follows| would be| is):"
    r"|(?:as (?:you )?requested|based on the (?:text|document|article|passage|information)(?: you)?(?: provided| gave| sent)),"
    rf" (?:here|below)\b|in (?:one|a single|two|three) sentences?:"
)
_TITLE = (
    r"(?:tl;?dr|(?:[\w-]+ ){0,2}summary(?: of (?:the|this) (?:text|document|article|passage))?|"
    r"(?:rewritten|revised|simplified|paraphrased) (?:sentence|text|version)|paraphrase)[*_]{0,3}:"
)
_THANKS = (
    r"(?:(?:great|good|excellent|interesting) question[.!](?!\w)|thanks for sharing!(?!\w)|(?:thank you|thanks)"
    r"(?: so much| a lot)? for (?:your (?:question|request|message|patience)|providing|sharing|asking"
    r"|the (?:text|article|document|question|information))\b)"
)
_PREAMBLE = re.compile(
    rf"[\s\"'“‘*_>#-]*(?:(?:(?:hello|hi|hey|hi there|hello there)(?:!|,)|answer:|response:|output:)\s*)?(?:"
    rf"{_YES}(?:!|\.(?=\s|$))|(?:{_YES}|yes)(?:[,!.]| [-–—])? (?:{_HERE}|{_OFFER}|here(?:[’']s| is| are)\b|i can\b)"
    rf"|{_HERE}|{_OFFER}|{_TITLE}|{_THANKS}|happy to help\b|great!)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"[\s#*_]{0,12}(?:tl;?dr|(?:\w+ ){0,2}summary)[:*_ ]{0,6}\n", re.IGNORECASE)
_GREETING = re.compile(r"\s*[\"“]?(?:hello|hi|hey)(?: there)?! (?!is\b)", re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether a sentence of the text refuses the task, asks for its input, or speaks about the model. O(characters)."""
    return _REFUSAL.search(without_invisible(text)) is not None


def has_preamble(text: str) -> bool:
    """Whether the text begins by announcing the output ("Sure! Here is the summary:") or with a title such as "Summary:"."""
    text = without_invisible(text)
    return any(pattern.match(text) is not None for pattern in (_PREAMBLE, _HEADING, _GREETING))
