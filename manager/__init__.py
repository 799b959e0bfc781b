"""Accounts, meetings, tickets, placement. Never carries media, never sees a password.

Rules: `accounts`, `meetings`, `tickets` (over `store`), `placement` and `throttle` (pure). `nodes` is the link to every relay, `desk`
joins rules, store and relays into what callers may ask for, `api` says it in HTTP, `settings` and `__main__` are the program's edge.
"""
