"""The site: server-rendered pages over the manager's rules. Thin; no rule and no table is here.

    browser ──▶ web.py (headers, origin of forms, language, session) ──▶ routes in app.py ──▶ one file of pages per area
                                                                          │
                                    forms.py (what was typed, and what is wrong with it) ◀┤
                                    pages.py (templates, per language) ◀──────────────────┘

`assets.py` serves what does not change under names that hold its hash, `languages.py` owns words, dates and zones.

Nothing secret stands in an address that this server sees: tokens from mails and a meeting's password come behind the `#`, and scripts of
the page put them where they belong (`static/`). Pages work without scripts where no secret has to be made in the browser.
"""
