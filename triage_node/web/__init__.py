"""The worklist page: a web server in a thread of the desk process, reading the journal and nothing else.

server.py listens and stops, routes.py answers, feed.py tells every open page of every change, picture.py turns the
overview image into a PNG. templates/ has the one page, static/ its style and its program; there is no build step and
nothing is fetched from elsewhere.
"""

from triage_node.web.routes import application
from triage_node.web.server import Page, serve

__all__ = ["Page", "application", "serve"]
