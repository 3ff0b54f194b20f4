"""Proper names in running English text, as one would write them in a question.

No dictionary and no model: a name is a run of capitalised words inside a sentence, followed by
something that shows it is a noun. Words that these texts capitalise out of respect are no names.
"""

import re

_WORD = r"[A-Z][^\W\d_]*(?:(?:['’]|[.-](?=[A-Z]))[^\W\d_]+)*"
_NAME = re.compile(
    rf"(?<=[a-z0-9,;] )(?>(?:the )?{_WORD}(?: (?:(?:of|and|for) (?:the )?)?{_WORD})*)"
    # What follows shows that the name is a noun, not the first half of "Chinese goods".
    r"(?=[,;.]? (?:of|in|on|and|or|to|is|was|has|have|had|for|by|at|with|from|are|were|will|shall|"
    r"should|would|as|that|which|who|the|a|an|I|we)\b|[,;.] |\.$)"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON = _words(  # capitalised in these texts, but nothing that one would ask for
    """
    I I'm I've I'll Congress Congresses President Presidents America American Americans
    Union Government Governments Nation Nations Federal State States United Senate House
    Houses Representatives Department Departments Secretary Secretaries Constitution
    Executive Administration Republic Republics Republicans Democrats Republican Democratic
    Democrat Members Member Speaker Vice Mr Mrs Ms Sir Governor Governors Territory
    Territories Treasury Legislature Court Supreme Chief Justice Attorney General Commission
    Commissioner Commissioners Board Bureau Committee Act Acts Bill Law Laws Treaty Minister
    Ministers Majesty Corporation January February March April May June July August
    September October November December Monday Tuesday Wednesday Thursday Friday Saturday Sunday
    God Almighty Heaven Providence Providential Father Being Creator Divine North South East
    West Western Eastern Northern Southern Army Navy War Interior Postmaster
    Postmaster-General Attorney-General Budget Plan Country Power Powers King Queen Emperor
    Excellency Report Message Our We The A An In On Of He She They Tonight Today Last No
    Post Office Independence World Fellow-Citizens Citizens People Public Service Civil
    Program Free Constitutional Presidential Congressional Imperial Company Economic FY
    Fiscal Year Calendar Council National Convention Conference Agreement Special British
    French Spanish Mexican Chinese English German Russian Indian Indians Administration's
    America's Nation's Government's Congress's President's World's Code Cabinet Commonwealth
    Empire Sultan Bank Endowment Administrations Aging Welfare Charter Health Education
    Labor Amendments Force Justices Judge Judges Class City Articles XVIII Islands Sec
    Speaker's Security Social Arctic Charge Senators Senator Congressmen Capitol District
    Districts Resolution
    """
)
_TAKES_ARTICLE = _words(
    """
    Act Acts Department Committee Program Programs Commission Administration Office Agency
    Council Army Corps Treaty Bureau Convention Fund Bank Service Initiative Bridge Canal
    River Islands Government Republic States Corporation Provinces Alliance Board System
    Accounts Pact Doctrine Conference Company Authority Union Empire Academy Institution
    Railroad Railway Isthmus Gulf Association Gallery Guard Court Statue Confederacy
    """
)
_OF_TAKES_ARTICLE = re.compile(
    r"(State|States|Territories|Empires|Secretaries|Governments|Republic|Emperor|King|Queen|"
    r"Kingdom|Empire|Government|Department|City|Bank|Board|Gulf|"
    r"Isthmus|Court|Bureau|Office|University|Territory|Province|District|Treaty|Chief|Convention|"
    r"Island|Islands|Sultan|Port|Declaration|Republics|Congress|Strait|Straits|Bay) (of|for) "
)


def proper_names(text: str) -> list[str]:
    """The proper names inside sentences, in order, as one would write them in a question."""
    found = []
    for match in _NAME.finditer(text.replace("Secretary of State ", "Secretary ")):
        words = match.group().removeprefix("the ").split()
        capitals = [word for word in words if word[0].isupper()]
        if all(word in _COMMON for word in capitals) or len(words) > 6 or "'" in words[-1]:
            continue
        name = " ".join(words)
        article = (
            match.group().startswith("the ")
            or words[-1] in _TAKES_ARTICLE
            or _OF_TAKES_ARTICLE.match(name)
        )
        found.append(f"the {name}" if article else name)
    return found
