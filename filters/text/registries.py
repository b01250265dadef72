"""What registries define about addresses and accounts: top-level domains and the length of an IBAN per country."""

from collections.abc import Mapping

_COUNTRIES = """
    ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf cg ch ci
    ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi gl gm gn gp
    gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li
    lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om
    pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc
    td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
"""
_GENERIC = """
    com net org edu gov mil int arpa info biz name pro aero coop museum jobs mobi travel tel cat asia post xxx
    academy agency app art bank beauty berlin bike bio blog build business cafe capital care cash center chat church city clinic
    cloud club codes coffee community company computer consulting cool dental design dev digital doctor earth email energy
    engineering estate events exchange expert family farm fashion film finance fit foundation fund fyi gallery games garden gmbh
    guide guru health help homes hospital host hotel house immo ink institute insurance international koeln kitchen land law
    lawyer legal life limited link live loan london ltd management market marketing media moe money network news ngo nyc one
    online ooo org page paris partners party photo photography photos place plus press pub racing realty recipes rent repair
    report restaurant rocks sale school science scot services shop site social software solar solutions space store studio support
    swiss systems tax team tech technology tips tirol today tokyo tools top tours training university vet video vin vip wales
    watch website wien wiki wine work works world wtf xyz yoga zone hamburg bayern ruhr saarland nrw quebec eus gal bzh cymru
"""
_SPACED_SCRIPTS = """
    рф рус дети москва онлайн сайт орг ком бел укр бг мкд срб мон қаз ею ελ ευ հայ გე ישראל קום
    مصر السعودية امارات الاردن المغرب تونس الجزائر عمان قطر فلسطين سوريا عراق ایران پاکستان موقع شبكة بازار
    भारत भारोत नेट कॉम संगठन বাংলা ভারত ਭਾਰਤ ભારત ଭାରତ இந்தியா இலங்கை சிங்கப்பூர் భారత్ ಭಾರತ ഭാരതം ලංකා
"""
_UNSPACED_SCRIPTS = (
    "中国 中國 香港 台灣 台湾 新加坡 澳門 公司 网络 網絡 组织机构 机构 政务 公益 在线 网址 网站 みんな 한국 닷컴 닷넷 ไทย ລາວ"
)


def _by_length(names: str) -> tuple[str, ...]:
    return tuple(sorted(set(names.split()), key=lambda name: (-len(name), name)))


ASCII_DOMAINS = _by_length(_COUNTRIES + _GENERIC)
"""Top-level domains of countries, and generic ones that are used for mail; longest first. Not those that are also common
attribute names or file suffixes in code (`.group`, `.mark`, `.zip`)."""

SPACED_DOMAINS = _by_length(_SPACED_SCRIPTS)
"""Internationalised top-level domains in scripts that separate words by spaces."""

UNSPACED_DOMAINS = _by_length(_UNSPACED_SCRIPTS)
"""Internationalised top-level domains in scripts where a word may follow directly (Chinese, Japanese, Korean, Thai, Lao)."""

IBAN_LENGTHS: Mapping[int, str] = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
"""Characters of an IBAN → the countries (SWIFT's IBAN registry)."""
