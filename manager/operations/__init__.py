"""Every call of the API: one table, from which come the routes, what is checked, and the description (`manager.openapi`).

An operation takes a typed body, typed words of its path and query, and a caller with a scope; its `act` calls the manager's functions and says
what they gave as one of `api_types`. No rule is here. Each module adds its calls to the table when it is imported, in this order.
"""

from manager.operations import guests, sign_in, account, meetings, administration  # isort: skip
from manager.operations.table import OPERATIONS, WORDS, Call, Operation, Text, word_untrusted

__all__ = ["OPERATIONS", "WORDS", "Call", "Operation", "Text", "account", "administration", "guests", "meetings", "sign_in", "word_untrusted"]
