"""The journal: SQLite through sqlite-utils, the truth that all processes share.

store.py has connections and transactions, schema.py the tables; intake.py, queue.py, succession.py, outbox.py,
proofs.py, messages.py and circuits.py what is done to them, each function one transaction; views.py and
correspondence.py what people and programs read.
"""

from triage_node.journal.store import Journal

__all__ = ["Journal"]
